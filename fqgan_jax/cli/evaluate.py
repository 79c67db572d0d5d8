"""`fqgan evaluate`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fqgan_jax.cli.arguments import (
    MODEL,
    SOURCE,
    add_batch_size,
    add_codebooks,
    add_data_dir,
    add_sampling,
    add_sweep,
    image_size,
    out_folder,
    positive,
    sampling_choices,
)
from fqgan_jax.errors import UserError, check
from fqgan_jax.storage import as_path

if TYPE_CHECKING:
    from fqgan_jax.data.transforms import Size

MANY_PROCESSES = True
HELP = "Measure images, a tokenizer's reconstructions or a generator's samples: FID and other metrics."
EXAMPLES = """\
  fqgan evaluate --data imagenet/val --size 256 --save-statistics val.npz
  fqgan evaluate --checkpoint runs/tokenizer --data imagenet/val --reference val.npz --out rfid.json
  fqgan evaluate --checkpoint runs/tokenizer --data photos --report report --runs runs/k2 runs/k4
  fqgan evaluate --checkpoint runs/far_b --tokenizer runs/dual --count 50000 --reference val.npz
FID and LPIPS need weights: fqgan weights fetch inception-fid vgg16 lpips-vgg16"""


def add_arguments(parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--checkpoint", metavar="MODEL", help=f"tokenizer (with --tokenizer: generator): {MODEL}")
    add_codebooks(parser, many=True)
    parser.add_argument("--tokenizer", metavar="MODEL", help="tokenizer that wrote the generator's codes")
    parser.add_argument("--data", help=f"images to measure, or to reconstruct: {SOURCE}; or .npz with arr_0")
    parser.add_argument("--reference", help="like --data, or .npz of statistics (default: the originals)")
    splits = ("all", "train", "validation")
    parser.add_argument(
        "--split", metavar="SPLIT", choices=splits, help="all, train or validation (the default, if there is one)"
    )
    parser.add_argument("--reference-split", metavar="SPLIT", choices=splits, help="as --split, of --reference")
    add_data_dir(parser)
    parser.add_argument(
        "--size",
        type=image_size,
        help="of centre crops, a side or HEIGHTxWIDTH (default: the model's)",
    )
    parser.add_argument("--count", type=positive, help="images, the first ones (default: all); samples to draw")
    add_sampling(parser)
    add_sweep(parser, "a table and a plot by sampling options")
    parser.add_argument(
        "--inception", type=Path, metavar="FILE", help="Inception's published file (default: the cache's)"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also the accuracy of linear classifiers of the class by its codes",
    )
    parser.add_argument("--out", type=as_path, metavar="FILE.json", help="numbers and their protocol")
    parser.add_argument(
        "--save-statistics", type=as_path, metavar="FILE.npz", help="of the images, for later use as --reference"
    )
    parser.add_argument(
        "--report", type=as_path, metavar="FOLDER", help="for pictures, and report.html with all of them"
    )
    parser.add_argument(
        "--runs",
        type=as_path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="work folders whose curves it overlays",
    )
    add_batch_size(parser, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the command writes.

    Attributes:
      numbers: JSON file for numbers and protocol; None: not asked for, as below.
      statistics: `.npz` for the statistics of the measured images.
      report: folder for pictures and report.html.
    """

    numbers: Path | None = None
    statistics: Path | None = None
    report: Path | None = None

    def make_folders(self) -> None:
        """Creates every folder before anything is measured. Raises `UserError` if one cannot be created."""
        for file in (self.numbers, self.statistics):
            if file is not None:
                out_folder(file.parent)
        if self.report is not None:
            out_folder(self.report)


def run(options) -> None:
    """Measures, prints a table, and writes what was asked for."""
    _check(options)
    logs = _read_logs(options)
    outputs = Outputs(numbers=options.out, statistics=options.save_statistics, report=options.report)
    outputs.make_folders()

    from fqgan_jax.evaluation.networks import load_networks
    from fqgan_jax.sharding.processes import is_first

    reconstructs = bool(options.checkpoint and not options.tokenizer)
    networks = load_networks(inception=options.inception, reconstruction_metrics=reconstructs)
    if outputs.statistics is not None and not networks.features:
        raise UserError(networks.missing["inception"])
    if not is_first():  # of many processes one writes
        outputs = Outputs()
    if options.sweep:
        _sweep(options, networks, outputs)
        return
    if options.codebooks and len(options.codebooks) > 1:
        _measure_prefixes(options, networks, outputs)
        return
    if options.tokenizer:
        measured, pictures = _measure_generator(options, networks, outputs)
    elif options.checkpoint:
        measured, pictures = _measure_tokenizer(options, networks, outputs)
    else:
        measured, pictures = _measure_images(options, networks), {}
    print(measured.evaluation.table())
    _write(outputs, measured, pictures, logs=logs)


def _check(options) -> None:
    """Raises `UserError` if flags are missing or contradict each other."""
    generator = bool(options.tokenizer)
    check(
        bool(options.data) or generator,
        "There is nothing to measure: give --data, or --checkpoint and --tokenizer of a generator.",
    )
    check(
        not generator or bool(options.checkpoint),
        "--tokenizer belongs to a generator: give the generator with --checkpoint.",
    )
    check(
        not (generator and options.data),
        "A generator's samples need no --data: give what they are compared with as --reference.",
    )
    check(
        not generator or bool(options.count),
        "The number of samples is missing: give --count (papers draw 50000).",
    )
    check(
        not options.codebooks or bool(options.checkpoint and not generator),
        "--codebooks is for the reconstructions of a tokenizer: give --checkpoint and --data, without --tokenizer.",
    )
    check(
        not options.probe or bool(options.checkpoint and not generator and len(options.codebooks or []) < 2),
        "--probe is for one tokenizer: give --checkpoint and --data, without --tokenizer and several --codebooks.",
    )
    check(
        len(options.codebooks or []) < 2 or not (options.save_statistics or options.report or options.runs),
        "Several --codebooks give a table and a plot beside --out: leave out --save-statistics, --report and --runs.",
    )
    check(
        not options.sweep or (generator and not (options.save_statistics or options.report or options.runs)),
        "--sweep is for a generator and gives a table and a plot beside --out: give --checkpoint and --tokenizer, and "
        "leave out --save-statistics, --report and --runs.",
    )
    check(not options.runs or bool(options.report), "--runs is for the report's curves: give --report too.")


def _measure_images(options, networks):
    from fqgan_jax.evaluation.images import evaluate_images

    images = _open_images(options, options.size)
    reference = _open_reference(options, networks, images.size)
    measured = evaluate_images(images, reference=reference, networks=networks, batch_size=options.batch_size)
    _print_skipped(images)
    return measured


def _measure_tokenizer(options, networks, outputs: Outputs):
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.pictures.tokenizer_pictures import tokenizer_pictures

    tokenizer = load_tokenizer(options.checkpoint).first(options.codebooks[0] if options.codebooks else None)
    images = _open_images(options, options.size or tokenizer.image_size)
    measured = _tokenizer_measurement(options, networks, images)(tokenizer)
    _print_skipped(images)
    if options.probe:
        measured = _with_probe(options, tokenizer, measured, size=images.size)
    if outputs.report is None:
        return measured, {}
    return measured, tokenizer_pictures(tokenizer, images, measured, folder=outputs.report)


def _with_probe(options, tokenizer, measured, *, size: "Size"):
    """Returns the measurement with the numbers of a linear probe."""
    from fqgan_jax.evaluation.image_set import open_images
    from fqgan_jax.evaluation.probe import probe_tokenizer, with_probe

    train, validation = (
        open_images(options.data, split=split, size=size, data_dir=options.data_dir)
        for split in ("train", "validation")
    )
    accuracies, protocol = probe_tokenizer(tokenizer, train, validation, batch_size=options.batch_size)
    return with_probe(measured, accuracies, protocol)


def _measure_prefixes(options, networks, outputs: Outputs) -> None:
    """Measures the first sub-codebooks alone, as often as asked; prints the table and writes numbers and plot."""
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.evaluation.prefixes import joined, measure_prefixes, prefix_table
    from fqgan_jax.pictures.quality import save_quality_against_bits

    tokenizer = load_tokenizer(options.checkpoint)
    images = _open_images(options, options.size or tokenizer.image_size)
    prefixes = measure_prefixes(tokenizer, options.codebooks, _tokenizer_measurement(options, networks, images))
    _print_skipped(images)
    print(prefix_table(prefixes))
    if outputs.numbers is not None:
        plot = outputs.numbers.with_suffix(".png")
        joined(prefixes).write(outputs.numbers)
        save_quality_against_bits(prefixes, plot)
        print(f"Numbers and protocol -> {outputs.numbers}, plot -> {plot}")


def _tokenizer_measurement(options, networks, images):
    """Returns the function that measures a tokenizer on these images."""
    from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer

    return partial(
        evaluate_tokenizer,
        images=images,
        reference=_open_reference(options, networks, images.size),
        networks=networks,
        batch_size=options.batch_size,
    )


def _sweep(options, networks, outputs: Outputs) -> None:
    """Measures a generator with each combination of values; prints the table and writes numbers and plot."""
    from fqgan_jax.evaluation.sweep import grid, parse_sweep, run_sweep, sweep_table
    from fqgan_jax.pictures.sweep import save_sweep_plot

    wanted = grid([parse_sweep(text) for text in options.sweep])
    _, _, measure = _generator_measurement(options, networks)
    points = []
    for point in run_sweep(wanted, lambda swept: measure(**swept).evaluation, outputs.numbers):
        points.append(point)
        print(sweep_table(points).splitlines()[-1] if len(points) > 1 else sweep_table(points), flush=True)
    if outputs.numbers is not None:
        plot = outputs.numbers.with_suffix(".png")
        drawn = f", plot -> {plot}" if save_sweep_plot(points, plot) else ""
        print(f"Numbers and protocol -> {outputs.numbers}{drawn}")


def _generator_measurement(options, networks):
    """Returns a generator, its tokenizer, and the function that measures it with some sampling options changed."""
    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.generator import evaluate_generator

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    tokenizer = generator.check_tokenizer(tokenizer)
    reference = _open_reference(options, networks, options.size or tokenizer.image_size)

    def measure(**changed):
        return evaluate_generator(
            generator,
            tokenizer,
            count=options.count,
            seed=options.seed,
            sampling=sampling_choices(options) | {name: [value] for name, value in changed.items()},
            reference=reference,
            networks=networks,
            batch_size=options.batch_size,
        )

    return generator, tokenizer, measure


def _measure_generator(options, networks, outputs: Outputs):
    from fqgan_jax.pictures.generator_pictures import generator_pictures

    generator, tokenizer, measure = _generator_measurement(options, networks)
    measured = measure()
    if outputs.report is None:
        return measured, {}
    return measured, generator_pictures(generator, tokenizer, measured, folder=outputs.report)


def _open_images(options, size: "Size | None"):
    from fqgan_jax.evaluation.image_set import open_images

    return open_images(options.data, split=options.split, size=size, limit=options.count, data_dir=options.data_dir)


def _open_reference(options, networks, size: "Size"):
    """Returns what to compare with; None if nothing is given or no features can be computed."""
    from fqgan_jax.evaluation.reference import open_reference

    if not options.reference or not networks.features:
        return None
    return open_reference(
        options.reference,
        networks.features,
        size=size,
        batch_size=options.batch_size,
        split=options.reference_split,
        data_dir=options.data_dir,
    )


def _print_skipped(images) -> None:
    if images.skipped.reasons:
        print(images.skipped.report())


def _write(outputs: Outputs, measured, pictures: dict[Path, str], *, logs: dict[str, list[dict]]) -> None:
    """Writes what was asked for, and prints where it is."""
    from fqgan_jax.evaluation.reference import save_statistics
    from fqgan_jax.pictures.report import write_evaluation_report

    evaluation = measured.evaluation
    if outputs.numbers is not None:
        evaluation.write(outputs.numbers)
        print(f"Numbers and protocol -> {outputs.numbers}")
    if outputs.statistics is not None:
        save_statistics(outputs.statistics, measured.features, evaluation.protocol)
        print(f"Statistics of {len(measured.features)} images -> {outputs.statistics}")
    if outputs.report is not None:
        page = outputs.report / "report.html"
        evaluation.write(outputs.report / "evaluation.json")
        write_evaluation_report(page, evaluation, pictures | _curves(logs, outputs.report / "curves.png"))
        print(f"Report -> {page}")


def _read_logs(options) -> dict[str, list[dict]]:
    """Returns what the given runs logged, and before them the measured model's run if it is a work folder."""
    from fqgan_jax.checkpoints import CheckpointName
    from fqgan_jax.training.logging import read_log

    logs = {str(folder): read_log(folder) for folder in options.runs}
    for folder, lines in logs.items():
        check(bool(lines), f"{folder} is not a work folder of fqgan train with a log: leave it out of --runs.")
    measured = read_log(CheckpointName.parse(options.checkpoint).workdir) if options.checkpoint else []
    return {options.checkpoint: measured} | logs if measured else logs


def _curves(logs: dict[str, list[dict]], path: Path) -> dict[Path, str]:
    """Writes the training curves of the runs; returns their caption."""
    from fqgan_jax.pictures.curves import save_overlaid_curves

    if not logs:
        return {}
    save_overlaid_curves(logs, path)
    return {path: "Training curves."}
