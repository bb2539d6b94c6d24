import pytest

from qna.cli import main


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run of one epoch on the digits; nothing may be written to it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--epochs", "1", "--batch-size", "64", "--device", "cpu", "--out", str(folder)]
    assert main(["train", "--data", "digits", *options]) == 0
    return folder
