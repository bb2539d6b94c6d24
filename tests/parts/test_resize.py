"""Resizing of tables: torch's antialiased bicubic interpolation, and two properties."""

import pytest
import torch
import torch.nn.functional as F

from qna.parts.resize import linear_matrix, mean_matrix, resample, resize_table


@pytest.mark.parametrize("size", [(4, 7), (8, 7), (9, 14), (1, 1), (3, 2), (2, 31)])
def test_equals_torch(size):
    table = torch.randn(4, 7, 2, 3, dtype=torch.float64)
    maps = table.flatten(2).movedim(-1, 0).unsqueeze(0)
    resized = F.interpolate(maps, size, mode="bicubic", align_corners=False, antialias=True)
    expected = resized.squeeze(0).movedim(0, -1).unflatten(-1, (2, 3))
    torch.testing.assert_close(resize_table(table, size), expected, rtol=1e-10, atol=1e-10)


def test_same_size_is_the_table_itself():
    table = torch.randn(4, 7, 2, 3)
    assert resize_table(table, (4, 7)) is table


def test_a_constant_stays_and_a_slope_stays_inside():
    torch.testing.assert_close(resize_table(torch.full((4, 7), 1.5), (9, 5)), torch.full((9, 5), 1.5))
    twice = resize_table(torch.arange(8.0).view(8, 1), (16, 1)).flatten()
    # position i of 16 lies at (i + 0.5) / 2 - 0.5 of 8; at the border taps are missing
    torch.testing.assert_close(twice[4:12], (torch.arange(4, 12) + 0.5) / 2 - 0.5)


@pytest.mark.filterwarnings("ignore")  # the tracer's own: it is told sizes that are numbers elsewhere
@pytest.mark.parametrize("recorded", [(9, 11), (3, 3), (4, 7)])
def test_a_recorded_graph_resizes_to_any_size(recorded):
    """Larger and smaller than the table, and as large: none becomes the only case."""
    table = torch.randn(4, 7, 2, dtype=torch.float64)

    def resized(like):
        return resize_table(table, like.shape)

    graphs = [torch.jit.trace(resized, torch.zeros(recorded), check_trace=False)]
    if recorded != (4, 7):

        class Resize(torch.nn.Module):
            def forward(self, like):
                return resized(like)

        dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        graphs.append(
            torch.export.export(Resize(), (torch.zeros(recorded),), dynamic_shapes=(dims,)).module()
        )
    for size in [(4, 7), (3, 5), (12, 9), (2, 2)]:
        for graph in graphs:
            expected = resized(torch.zeros(size))
            # sums of at most 28 products of a weight below 1 with numbers below 4
            torch.testing.assert_close(graph(torch.zeros(size)), expected, rtol=0, atol=28 * 4 * 2.0**-52)


@pytest.mark.parametrize(
    ("old", "new"), [((3, 5), (7, 11)), ((9, 4), (5, 4)), ((1, 1), (7, 7)), ((13, 2), (13, 9))]
)
def test_maps_are_resampled_as_torch_does(old, new):
    x = torch.randn(2, *old, 3, dtype=torch.float64)
    image = x.movedim(-1, 1)
    linear = torch.nn.functional.interpolate(image, new, mode="bilinear").movedim(1, -1)
    mean = torch.nn.functional.adaptive_avg_pool2d(image, new).movedim(1, -1)
    for matrix, expected in ((linear_matrix, linear), (mean_matrix, mean)):
        found = resample(x, *(matrix(n, o, x) for n, o in zip(new, old, strict=True)))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
