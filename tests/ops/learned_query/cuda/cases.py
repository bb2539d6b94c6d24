"""What is particular to the CUDA kernels: groups of heads, parts of channels, tiles that borders cut."""

from qna.ops.learned_query.cases import Case

SMALL = Case("small", (9, 20), (3, 3), batch=1, heads=8, head_dim=8)
LAYERS = (
    SMALL,
    Case("k5-two-tiles", (6, 19), (5, 5), heads=8, head_dim=8),
    Case("k7-sixteen-heads", (7, 7), (7, 7), batch=1, heads=16, head_dim=8),
    Case("groups-of-heads", (5, 5), (3, 3), heads=20, head_dim=4),
    Case("four-queries-d16", (9, 18), (5, 5), queries=4, heads=4, head_dim=16),
    Case("one-query-d32", (6, 9), (7, 7), queries=1, heads=2, head_dim=32),
    Case("eight-parts-d64", (4, 5), (3, 3), heads=1, head_dim=64),
    Case("d6-of-12", (5, 9), (3, 3), heads=5, head_dim=12),
    Case("padded-by-three", (5, 9), (5, 5), heads=4, head_dim=8, window={"padding": 3}),
)
