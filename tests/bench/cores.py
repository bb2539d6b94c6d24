"""What tests of measurements take care of: they keep to some cores, and later tests want all."""

import pytest
import torch

from qna.bench.measure.cores import CORES, pin


@pytest.fixture(autouse=True)
def cores_and_threads_stay_as_they_were():
    threads = torch.get_num_threads()
    yield
    pin(len(CORES))
    torch.set_num_threads(threads)
