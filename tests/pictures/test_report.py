"""Reports: numbers with units, what is missing at the end, nothing that a name could inject."""

from html.parser import HTMLParser

from PIL import Image

from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.pictures.report import Row, number_rows, write_evaluation_report


class Reader(HTMLParser):
    """Collects tags and text of a page in order."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_numbers_have_units_and_those_of_sub_codebooks_share_a_row():
    results = {"psnr": 24.14836, "usage/0": 0.95, "usage/1": 1.0, "mutual_information/0-1": 0.4, "loss": 1e-7}
    results |= {"probe/0": 0.5, "probe/all": 0.75} | {f"perplexity/{k}": 10.0 + k for k in range(9)}
    assert number_rows(results) == [
        Row("psnr", "24.15 dB", "higher is better"),
        Row("usage", "0.95, 1", "higher is better"),
        Row("mutual_information", "0.4 (0-1) nats", "lower is better"),
        Row("loss", "1e-07"),
        Row("probe", "0.5 (0), 0.75 (all)", "higher is better"),
        Row("perplexity", "10 to 18 (9 values)", "higher is better"),
    ]
    assert number_rows({"validation/psnr": 20.0}) == [Row("validation/psnr", "20 dB", "higher is better")]


def test_a_report_has_everything_in_order_and_escapes_it(tmp_path):
    Image.new("RGB", (90, 10)).save(tmp_path / "wide.png")
    Image.new("RGB", (10, 10)).save(tmp_path / "square.png")
    reason = "The weights of x are not there: run `fqgan weights fetch x`. Without a connection, copy them."
    evaluation = Evaluation(
        results={"psnr": 20.0},
        missing={"rfid": reason, "lpips": reason},
        protocol={"task": "tokenizer", "data": {"name": "<script>", "count": 3, "skipped": []}, "lpips": None},
    )
    captions = {tmp_path / "wide.png": "a <b> caption", tmp_path / "square.png": "square"}
    write_evaluation_report(tmp_path / "report.html", evaluation, captions)
    page = Reader((tmp_path / "report.html").read_text())
    places = [page.text.index(part) for part in ("20 dB", "a <b> caption", "data: name", "<script>", "Missing")]
    assert places == sorted(places)
    assert page.text.endswith("rfid, lpips: The weights of x are not there: run fqgan weights fetch x")
    assert "skipped" not in page.text
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert [("class" in attributes) for tag, attributes in page.tags if tag == "figure"] == [True, False]
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in page.tags if tag == "img")
