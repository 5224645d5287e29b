"What moves a map and what fades it: no scene may depend on those it shares a batch with."
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from person_search_nb.masking import SoftMask, SpatialTransformer, patch_means, true_sizes


def moved(channels=3, seed=0, dtype=torch.float32):
    "A transformer whose theta differs from the identity, and from map to map."
    torch.manual_seed(seed)
    net = SpatialTransformer(channels)
    with torch.no_grad():
        net.localise[-1].weight.normal_(std=1.)
        net.localise[-1].bias.add_(torch.tensor([-.15, .1, .2, -.1, .2, -.3]))
    return net.to(dtype)


def true_part(sizes, h, w):
    inside = torch.zeros(len(sizes), 1, h, w, dtype=torch.bool)
    for i, (r, c) in enumerate(sizes): inside[i, :, :r, :c] = True
    return inside


sides = st.tuples(st.integers(1, 12), st.integers(1, 17))


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(sides, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_scene_alone_and_beside_a_larger_one(sizes, seed):
    h, w = (max(s) + 2 for s in zip(*sizes))
    net, inside = moved(seed=seed), true_part(sizes, h, w)
    maps = torch.randn(len(sizes), 3, h, w)  # noise in the padding
    with torch.no_grad(): beside, thetas = net(maps, inside), net.theta(maps, inside)
    for x, y, theta, (r, c) in zip(maps, beside, thetas, sizes):
        with torch.no_grad(): alone, own = net(x[None, :, :r, :c])[0], net.theta(x[None, :, :r, :c])[0]
        torch.testing.assert_close(theta, own, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(y[:, :r, :c], alone, rtol=1e-3, atol=1e-4)
        assert not y[:, r:].any() and not y[:, :, c:].any()  # padding stays 0
    assert (thetas - torch.tensor([[1., 0, 0], [0, 1, 0]])).abs().amax() > 0.05


def test_without_inside_the_padding_moves_the_scene():
    net, maps = moved(), torch.randn(1, 3, 12, 16)
    with torch.no_grad(): alone, padded = net(maps), net(F.pad(maps, (0, 8, 0, 4)))
    assert (padded[..., :12, :16] - alone).abs().max() > 0.3
    with torch.no_grad(): told = net(F.pad(maps, (0, 8, 0, 4)), true_part([(12, 16)], 16, 24))
    torch.testing.assert_close(told[..., :12, :16], alone, rtol=1e-4, atol=1e-5)


def test_all_cells_inside_is_the_same_as_not_saying():
    net, maps = moved(), torch.randn(2, 3, 9, 11)
    with torch.no_grad(): told, plain = net(maps, torch.ones(2, 1, 9, 11, dtype=torch.bool)), net(maps)
    torch.testing.assert_close(told, plain, rtol=1e-4, atol=1e-5)


def test_a_new_one_changes_no_true_cell():
    maps, inside = torch.randn(2, 3, 9, 11), true_part([(9, 11), (4, 6)], 9, 11)
    torch.testing.assert_close(SpatialTransformer(3)(maps, inside), maps * inside, rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_the_padding_and_not_a_number_stays_there():
    net, inside = moved(), true_part([(4, 6)], 9, 11)
    maps = torch.randn(1, 3, 9, 11).masked_fill(~inside, float('nan')).requires_grad_()
    out = net.forward(maps.where(inside, torch.zeros(())), inside)
    out.square().sum().backward()
    assert out.isfinite().all() and maps.grad.isfinite().all()
    assert not maps.grad.where(inside, torch.zeros(())).eq(0).all() and not maps.grad[~inside.expand_as(maps)].any()


def test_gradient_with_padding():
    net, inside = moved(2, dtype=torch.double), true_part([(4, 5), (3, 6)], 4, 6)
    maps = torch.rand(2, 2, 4, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: net(x, inside), maps, atol=1e-4)


@pytest.mark.parametrize('padded', (False, True))
def test_theta_is_float32_under_autocast(padded):
    "Equal to the last bit for the same features; the whole map to bfloat16's own precision."
    net, maps, inside = moved(), torch.randn(2, 3, 20, 94), true_part([(20, 94), (11, 60)], 20, 94) if padded else None
    half = maps.bfloat16()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16): under, out = net.theta(half, inside), net(half, inside)
    with torch.no_grad(): assert torch.equal(under, net.theta(half.float(), inside))
    assert under.dtype == torch.float32 and out.dtype == torch.bfloat16
    with torch.no_grad(): torch.testing.assert_close(out.float(), net(half.float(), inside), rtol=0.01, atol=0.01)
    assert not torch.equal(under, under.bfloat16().float())  # it would have been rounded


def test_model_in_half_precision_and_on_meta():
    assert moved().bfloat16()(torch.randn(1, 3, 8, 9).bfloat16()).dtype == torch.bfloat16
    with torch.device('meta'): assert SpatialTransformer(3)(torch.empty(2, 3, 7, 9)).shape == (2, 3, 7, 9)


@settings(deadline=None, max_examples=30)
@given(size=sides, extra=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_patches_are_pytorchs(size, extra):
    (r, c), (h, w) = size, [a + b for a, b in zip(size, extra)]
    x, inside = torch.randn(1, 2, h, w, dtype=torch.double), true_part([size], h, w)
    assert [int(n) for n in true_sizes(inside)] == [r, c]
    torch.testing.assert_close(patch_means(x, inside), F.adaptive_avg_pool2d(x[:, :, :r, :c], 4))


def test_a_scene_without_a_true_cell_is_finite():
    assert not moved()(torch.randn(1, 3, 5, 6), torch.zeros(1, 1, 5, 6, dtype=torch.bool)).any()


@settings(deadline=None, max_examples=20)
@given(r=st.integers(0, 5), c=st.integers(1, 20), h=st.integers(1, 15), w=st.integers(1, 15))
def test_soft_mask_is_one_number_per_cell(r, c, h, w):
    fade, x = SoftMask(c), torch.randn(r, c, h, w)
    y, mask = fade(x)
    assert mask.shape == (r, 1, h, w) and y.shape == x.shape and ((mask >= 0) & (mask <= 1)).all()
    torch.testing.assert_close(y, x * mask)


def test_soft_mask_by_hand_and_open_at_first():
    torch.manual_seed(0)
    fade, x = SoftMask(16), torch.randn(4, 16, 14, 14)
    first, last = fade.cells[0], fade.cells[2]
    mask = fade(x)[1]
    for k, i, j in ((0, 0, 0), (3, 13, 2)):
        hidden = (first.weight[:, :, 0, 0] @ x[k, :, i, j] + first.bias).relu()
        torch.testing.assert_close(mask[k, 0, i, j], (last.weight[0, :, 0, 0] @ hidden + last.bias[0]).sigmoid())
    assert 0.8 < mask.mean() < 0.95


def test_soft_mask_does_not_depend_on_the_other_regions():
    fade, x = SoftMask(8), torch.randn(3, 8, 7, 7)
    torch.testing.assert_close(fade(x)[1][1:2], fade(x[1:2])[1])


def test_soft_mask_learns_to_close_a_cell():
    torch.manual_seed(0)
    fade, x = SoftMask(4, 1), torch.rand(2, 4, 5, 5)
    x[:, 0, 2, 2] = 5.
    opt = torch.optim.Adam(fade.parameters(), 0.05)
    for _ in range(150):
        loss = fade(x)[0][:, 0, 2, 2].square().mean() + (fade(x)[1].mean() - 0.9).square()
        opt.zero_grad(); loss.backward(); opt.step()
    mask = fade(x)[1]
    assert mask[:, 0, 2, 2].max() < 0.1 < 0.7 < mask.mean()
