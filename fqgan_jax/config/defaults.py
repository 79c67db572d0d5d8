"""Every field of a config: its default, what else it may be, and one line on what it is."""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from fqgan_jax.config.rules import (
    DTYPE,
    SIZE,
    Choice,
    Either,
    Field,
    Many,
    Nothing,
    Number,
    Rule,
    Text,
    Whole,
    count,
    flag,
    flat,
    fraction,
    number,
    positive,
    share,
    text,
    weight,
    whole,
)

REMAT = Choice(("none", "blocks", "full"))


def tokenizer_defaults() -> ConfigDict:
    """The published dual tokenizer at f = 16; every field a tokenizer run has."""
    return _values(_tokenizer_fields())


def generator_defaults() -> ConfigDict:
    """The published FAR-B; every field a generator run has. K, N, grid and classes come from the code cache."""
    return _values(_generator_fields())


def task_defaults() -> ConfigDict:
    """Fields that every task has; the defaults of your own task start from them."""
    return _values(_task_fields())


def field_rules(task: str) -> dict[str, Rule]:
    """Returns what each field of a task's config may be, by its path; of your own task, the fields of every task."""
    declare = {"tokenizer": _tokenizer_fields, "generator": _generator_fields}.get(task, _task_fields)
    return {path: field.rule for path, field in flat(declare()).items()}


def _values(fields: ConfigDict) -> ConfigDict:
    """Returns the defaults; a field of several types takes any of them from a config."""
    config = ConfigDict()
    for name, field in fields.items():
        if isinstance(field, ConfigDict):
            config[name] = _values(field)
        else:
            several = isinstance(field.rule, Either)
            config[name] = FieldReference(field.default, field_type=object) if several else field.default
    return config


def _tokenizer_fields() -> ConfigDict:
    config = ConfigDict()
    config.task = text("tokenizer")  # which task the config trains
    config.seed = whole(0, 0, 2**32 - 1)  # seed of initialization, batches and augmentation

    config.model = model = ConfigDict()
    model.num_codebooks = whole(2, 1, 64)  # K
    model.codebook_size = whole(16384, 2, 2**24)  # N, entries per sub-codebook
    model.code_dim = whole(8, 1, 2**12)  # d
    model.factorization = text("adapters")  # "adapters": a head per sub-codebook; "split": channels split K ways
    # "vq" (the paper), "simvq", "ibq", "lfq", "bsq" or "fsq"; a file of yours can add others
    model.quantizer = text("vq")
    # of each dimension of "fsq"; empty: equal numbers whose product is codebook_size
    model.levels = Field((), Many(Whole(2, 2**12)))
    # from entries to latents: "straight_through" or "rotation"
    model.gradient = Field("straight_through", Choice(("straight_through", "rotation")))
    # probability that a step leaves out each sub-codebook, or the last alone; empty: none
    model.nested = Field((), Many(Number(0, 1)))
    model.base_width = whole(128, 1, 2**14)  # channels of the first level
    # width of each level; len - 1 halvings
    model.multipliers = Field((1, 1, 2, 2, 4), Many(Whole(1, 2**8), tuple(range(1, 9))))
    model.num_blocks = whole(2, 1, 64)  # residual blocks a level (one more in the decoder)
    model.norm_groups = whole(32, 1, 2**14)  # groups of the group normalization; fewer for narrow models
    model.z_channels = whole(256, 1, 2**16)  # width around the latents; must be K * d for "split"
    model.adapter_depth = whole(6, 0, 256)  # transformer blocks of each adapter; 0: linear layers alone
    model.adapter_heads = whole(8, 1, 256)  # attention heads of each adapter
    model.feature_depth = whole(3, 1, 256)  # transformer blocks of each feature head
    model.feature_heads = whole(8, 1, 256)  # attention heads of each feature head
    model.normalized = flag(True)  # compare latents and entries as unit vectors
    model.temperature = number(0.01, 0, above=True)  # temperature of the soft assignment of the entropy loss
    model.chunk_tokens = positive(512)  # tokens per device whose distances to the codebooks are in memory at a time
    model.remat = Field("none", REMAT)  # what the backward pass recomputes: "none", "blocks" or "full" (least memory)
    # transformer layers in a row instead of in a loop: fewer copies on GPUs, longer compilation
    model.unroll = flag(False)
    model.dtype = Field("bfloat16", DTYPE)  # data type of the computation; parameters stay float32

    # per sub-codebook whose feature it predicts, or None
    config.teachers = Field((None, "clip-vit-large-patch14"), Many(Either((Nothing(), Text()))))
    config.frozen_dtype = Field("bfloat16", DTYPE)  # data type of the computation in teachers and perceptual loss

    config.loss = loss = ConfigDict()
    loss.reconstruction = weight(1.0)  # weight of the mean squared error
    loss.perceptual = weight(1.0)  # weight of the perceptual loss; 0: none, and no network's weights are needed
    loss.perceptual_network = text("lpips")  # that compares images: "lpips" or "efficientnet-lite0" (its logits)
    loss.codebook = weight(1.0)  # weight of the codebook loss
    loss.commitment = weight(0.25)  # weight of the commitment loss
    loss.soft_entries = weight(1.0)  # weight of the loss that only the quantizer "ibq" has
    loss.entropy = weight(0.03)  # weight of the entropy loss
    loss.disentanglement = weight(0.1)  # weight of the disentanglement loss
    loss.feature = weight(0.5)  # weight of each feature prediction
    loss.feature_group = count(0)  # examples that contrast in it; 0: the global batch (published: a device's share)

    config.adversarial = adversarial = ConfigDict()
    adversarial.discriminator = text("patch")  # "patch" (PatchGAN), "style" (StyleGAN2's) or "none"
    adversarial.loss = text("hinge")  # "hinge", "vanilla" or "non_saturating"
    adversarial.weight = weight(0.5)  # weight of the adversarial losses of both networks
    adversarial.start = count(20_000)  # first step at which they count
    # first step at which the discriminator learns; 0: with adversarial.start
    adversarial.discriminator_start = count(0)
    adversarial.ramp = positive(1)  # steps over which their weight then grows
    adversarial.adaptive = flag(False)  # balance its gradient with that of the reconstruction losses
    adversarial.adaptive_largest = number(1e4, 0, above=True)  # largest factor of that balance
    adversarial.lecam = weight(0.0)  # weight of LeCAM regularization
    adversarial.lecam_decay = fraction(0.999)  # decay of its moving averages of the logits
    adversarial.r1 = weight(0.0)  # weight of the penalty on the gradient at real images
    # channels of the first convolution ("patch"), an eighth of the largest ("style")
    adversarial.width = whole(64, 1, 2**14)
    adversarial.optimizer = _optimizer_fields(average=False)

    config.perturbation = perturbation = ConfigDict()
    # probability that a code of a perturbed image is replaced before decoding; 0: none
    perturbation.tokens = share(0.0)
    perturbation.images = share(0.1)  # probability that an image is perturbed
    perturbation.nearest = whole(100, 1, 2**24)  # a replacement is one of so many entries nearest to the latent

    config.kmeans_batches = count(0)  # codebooks begin as the k-means centres of so many batches' latents; 0: random
    config.reseed_after = count(0)  # unused codebook entries move to random latents after so many steps; 0: never

    config.data = _data_fields()
    # an image folder, a prepared one, "tfds:NAME[:VERSION]", tar files, or "photos"
    config.data.source = Field("photos", Text(empty=False))
    config.data.data_dir = text("")  # folder of prepared tensorflow-datasets; empty: their own default
    config.data.image_size = Field(256, SIZE)  # side of the square crops, or (height, width)
    config.data.validation_fraction = fraction(0.05)  # held-out part of a source without a validation split
    config.data.full_decode = flag(False)  # decode JPEG files for training at full scale even if less would do
    # unreadable images allowed, at least ten; 0: none; more end the run
    config.data.largest_skipped_fraction = fraction(0.01)
    # folder that `fqgan features` wrote: no teacher is needed; empty: they run in the step
    config.data.features = text("")
    # processes that read and augment, each with num_threads; 0: threads of this one
    config.data.num_workers = whole(0, 0, 4096)

    config.optimizer = _optimizer_fields()
    config.train = _train_fields()
    config.train.accumulate = positive(1)  # parts into which a batch is split to save memory; the result is the same
    config.train.evaluate_count = count(0)  # validation images that evaluations count, from the first on; 0: all
    config.mesh = _mesh_fields()

    config.evaluation = evaluation = ConfigDict()
    evaluation.reconstructions = count(0)  # steps between measurements of validation images; 0: train.evaluate_every
    evaluation.pictures = count(0)  # steps between pictures of reconstructions; 0: train.evaluate_every
    return config


def _generator_fields() -> ConfigDict:
    config = ConfigDict()
    config.task = text("generator")  # which task the config trains
    config.seed = whole(0, 0, 2**32 - 1)  # seed of initialization, batches and dropout

    config.model = model = ConfigDict()
    model.width = whole(1024, 4, 2**16)  # D
    model.depth = whole(24, 1, 1024)  # blocks of the backbone
    model.num_heads = whole(16, 1, 1024)  # attention heads, backbone and head
    # of a position's K codes: "transformer" (the paper), "parallel", "flattened", …
    model.prediction = text("transformer")
    model.head_depth = whole(3, 1, 1024)  # blocks of the head that "transformer" predicts them with
    # of codes: "learned", or "codebook": they begin as projections of the entries
    model.embeddings = Field("learned", Choice(("learned", "codebook")))
    model.dropout = fraction(0.1)  # on input tokens, attention and MLP outputs
    model.swiglu_multiple = whole(256, 1, 2**16)  # the SwiGLU's hidden width is rounded up to it
    model.remat = Field("none", REMAT)  # what the backward pass recomputes: "none", "blocks" or "full" (least memory)
    # transformer layers in a row instead of in a loop: fewer copies on GPUs, longer compilation
    model.unroll = flag(False)
    model.dtype = Field("bfloat16", DTYPE)  # data type of the computation; parameters and logits stay float32

    config.loss = loss = ConfigDict()
    loss.next_code = weight(1.0)  # weight of the cross-entropy of the next code, the mean over sub-codebooks

    config.class_dropout = share(0.1)  # share of labels replaced by the null class
    # two steps between which the share of permuted examples falls from 1 to 0; empty: none
    config.order_annealing = Field((), Many(Whole(), (0, 2)))

    config.data = _data_fields()
    config.data.codes = text("")  # folder that `fqgan tokenize` wrote
    # held-out codes; empty: the folder "validation" in data.codes, if there is one
    config.data.validation_codes = text("")
    config.data.codebooks = whole(0, 0, 64)  # train on the first so many sub-codebooks of a nested tokenizer; 0: all

    config.optimizer = _optimizer_fields()
    config.optimizer.learning_rate = number(1e-4, 0, 1e3)
    config.optimizer.weight_decay = weight(0.05)
    config.train = _train_fields()
    config.mesh = _mesh_fields()

    config.evaluation = evaluation = ConfigDict()
    evaluation.held_out = count(0)  # steps between measurements of the held-out codes; 0: train.evaluate_every
    evaluation.samples = count(0)  # steps between measurements of sample.count samples; 0: train.evaluate_every
    evaluation.pictures = count(0)  # steps between pictures of samples; 0: train.evaluate_every

    config.sample = sample = ConfigDict()
    sample.per_class = whole(2, 1, 2**16)  # images of each of the first 8 classes, drawn at every evaluation
    sample.guidance = number(2.0)  # scale of classifier-free guidance
    sample.temperature = number(1.0)  # logits are divided by it; 0: always the most probable code
    sample.top_k = count(0)  # only so many of the most probable codes; 0: all
    sample.top_p = share(1.0)  # only the most probable codes that together reach this probability; 1: all
    sample.min_p = share(0.0)  # only codes at least this share as probable as the most probable one; 0: all
    # "constant", "power_cosine:P" or "interval:START-STOP" along the positions
    sample.guidance_schedule = text("constant")
    sample.tokenizer = text("")  # checkpoint that decodes them; empty: no pictures
    sample.count = count(0)  # samples for gFID, precision, recall and inception score at every evaluation; 0: none
    sample.reference = text("")  # what they are compared with: statistics (.npz) or images
    return config


def _task_fields() -> ConfigDict:
    config = ConfigDict()
    config.task = text("")  # which task the config trains
    config.seed = whole(0, 0, 2**32 - 1)  # seed of initialization and batches
    config.data = _data_fields()
    config.optimizer = _optimizer_fields()
    config.train = _train_fields()
    config.mesh = _mesh_fields()
    return config


def _data_fields() -> ConfigDict:
    data = ConfigDict()
    data.batch_size = whole(256, 1, 2**24)  # global batch, over all devices and hosts
    data.num_threads = whole(8, 1, 4096)  # that read and augment, on each host
    # what tells a resumed run that its data changed: "names", "files" (sizes and times too) or "content" (reads all)
    data.verify = Field("files", Choice(("names", "files", "content")))
    data.allow_changes = flag(False)  # resume with data that changed
    data.cache_dir = text("")  # local folder for copies of what object storage holds; empty: $FQGAN_CACHE/objects
    data.cache_gb = weight(20.0)  # its largest size, in GB; 0: nothing is kept
    return data


def _optimizer_fields(*, average: bool = True) -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.learning_rate = number(2e-4, 0, 1e3)  # peak
    # "constant", "cosine", "linear" or "stable_decay" to the floor at the last step
    optimizer.schedule = text("constant")
    optimizer.floor = share(0.0)  # share of the peak at which the schedule ends
    optimizer.decay_steps = count(0)  # steps over which "stable_decay" falls at the end
    optimizer.warmup_steps = count(0)  # linear warm-up
    optimizer.b1 = fraction(0.9)  # Adam's first decay
    optimizer.b2 = fraction(0.95)  # Adam's second decay
    optimizer.weight_decay = weight(0.0)  # on matrices only
    optimizer.clip = number(1.0, 0, above=True)  # global gradient norm
    if average:
        optimizer.ema_decay = fraction(0.0)  # decay of the moving average of the weights; 0: none
    return optimizer


def _train_fields() -> ConfigDict:
    train = ConfigDict()
    train.steps = positive(200_000)  # in all
    train.log_every = positive(100)  # steps between log lines
    # steps between evaluations without a period of their own; all run at the end too
    train.evaluate_every = positive(5000)
    # where numbers and pictures go beside the work folder's own log: "tensorboard", "wandb", "mlflow"
    train.logger = Field(("tensorboard",), Many(Text(empty=False)))
    train.checkpoint_every = positive(5000)  # steps between checkpoints; also at the end
    train.keep_checkpoints = positive(3)  # number of newest checkpoints to keep
    train.keep_every = count(0)  # keep checkpoints at multiples of this step forever; 0: none
    train.keep_best = text("")  # validation metric whose best checkpoint is kept; "-rfid": lower is better; empty: none
    train.init_from = text("")  # weights to start from: whatever --checkpoint takes; empty: random
    # patterns of parameters that stay as they are: ("encoder", "heads", "decoder/level[01]")
    train.freeze = Field((), Many(Text()))
    train.max_skipped = positive(100)  # the run stops after so many updates in a row that were not finite
    train.largest_skipped_share = share(0.5)  # or if more of the updates of the last ten log lines were not finite
    return train


def _mesh_fields() -> ConfigDict:
    mesh = ConfigDict()
    mesh.data = Field(-1, Either((Whole(-1, -1), Whole(1))))  # devices that only split the batch; -1: all that are left
    mesh.fsdp = positive(1)  # devices that split both the batch and the parameters
    # devices that share the heads, hidden channels and vocabulary of each layer; they see one batch
    mesh.tensor = positive(1)
    return mesh
