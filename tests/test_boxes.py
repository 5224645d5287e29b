"""Box ops, NMS and RoIAlign against torchvision on inputs that hypothesis makes up."""
import pytest
import torch
import torchvision
from hypothesis import given, settings, strategies as st
from person_search_nb import boxes as B
from person_search_nb.roi_align import crop_resize_pool, roi_align, roi_pool

some = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)


def random_boxes(n, g, low=-60.0, high=400.0, whole=False):
    "Boxes (n, 4) with positive area, inside and outside of a 192 x 320 image; whole: corners on whole pixels, so that ties are common."
    corner = low + torch.rand(n, 2, generator=g) * (high - low)
    size = 1 + torch.rand(n, 2, generator=g) ** 3 * 300
    boxes = torch.cat([corner, corner + size], 1)
    return torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1) if whole else boxes


def test_zero_boxes_everywhere():
    none = torch.zeros(0, 4)
    assert B.box_area(none).shape == (0,) and B.box_iou(none, torch.ones(3, 4)).shape == (0, 3)
    for f in (B.xywh_to_xyxy, B.xyxy_to_xywh, lambda b: B.encode_boxes(b, b), lambda b: B.decode_boxes(b, b), lambda b: B.clip_boxes(b, (5, 5)), lambda b: B.flip_boxes(b, 9), B.check_boxes):
        assert f(none).shape == (0, 4)
    assert B.keep_large(none, 3).shape == (0,) and B.nms(none, torch.zeros(0), 0.5).tolist() == []


@some
@given(seeds, st.integers(0, 30), st.integers(0, 30))
def test_iou_is_torchvisions(seed, n, m):
    g = torch.Generator().manual_seed(seed)
    a, b = random_boxes(n, g), random_boxes(m, g)
    torch.testing.assert_close(B.box_iou(a, b), torchvision.ops.box_iou(a, b), atol=1e-6, rtol=0)


@some
@given(seeds, st.integers(0, 30))
def test_coding_round_trips_and_is_torchvisions(seed, n):
    g = torch.Generator().manual_seed(seed)
    goal, reference = random_boxes(n, g).double(), random_boxes(n, g).double()
    deltas = B.encode_boxes(goal, reference)
    coder = torchvision.models.detection._utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(deltas, coder.encode([goal], [reference])[0])
    clamped = (deltas[:, 2:] > B.MAX_LOG_RATIO).any(1)
    torch.testing.assert_close(B.decode_boxes(deltas, reference)[~clamped], goal[~clamped], atol=1e-6, rtol=0)
    torch.testing.assert_close(B.decode_boxes(deltas, reference), coder.decode(deltas, [reference]).view(-1, 4))


@some
@given(seeds, st.integers(0, 300), st.sampled_from([16, 64, 256]), st.sampled_from([0.2, 0.3, 1 / 3, 0.5, 0.6, 0.7, 0.9]), st.booleans(), st.booleans())
def test_block_nms_is_torchvisions(seed, n, block, threshold, whole, wide):
    g = torch.Generator().manual_seed(seed)
    boxes = random_boxes(n, g, 0, 60 if wide else 400, whole)
    scores = torch.randint(8, (n,), generator=g).float() if whole else torch.rand(n, generator=g)  # eight scores only: ties
    expected = torchvision.ops.nms(boxes, scores, threshold)
    if n: assert torch.equal(B._block_nms(boxes, scores, threshold, block), expected)
    assert torch.equal(B.nms(boxes, scores, threshold), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('threshold', [0.5, 0.7])
def test_nms_of_many_boxes_is_torchvisions(dtype, threshold):
    g = torch.Generator().manual_seed(0)
    for whole in (True, False):
        boxes = random_boxes(5000, g, 0, 800, whole).to(dtype)
        scores = torch.randint(500, (5000,), generator=g).to(dtype)
        assert torch.equal(B.nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize('iou', [1 / 3, 0.25, 0.2])
def test_an_iou_of_just_the_threshold(iou):
    boxes = torch.tensor([[0.0, 0.0, round(1 / iou), 1.0], [0.0, 0.0, 1.0, 1.0]])
    scores = torch.tensor([1.0, 0.5])
    near = float(torch.tensor(iou))
    for threshold in (iou, near, near * (1 - 1e-9), near * (1 + 1e-9)):
        assert torch.equal(B._block_nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize('boxes, words', [
    ([[10, 10, 50, 90], [200, 100, 30, 80]], ['row 1', 'xywh_to_xyxy']), ([[0, 0, 500, 20]], ['row 0', 'clip_boxes']),
    ([[0, 0, float('inf'), 20]], ['not finite']), ([[-9, 0, -9, -1]], ['no area']), ([1, 2, 3, 4], ['(N, 4)'])])
def test_check_boxes_names_the_row_and_the_mend(boxes, words):
    with pytest.raises(ValueError) as e: B.check_boxes(torch.tensor(boxes, dtype=torch.float32), (192, 320), 'frame.jpg')
    assert all(w in str(e.value) for w in ['frame.jpg', *words])


@settings(max_examples=80, deadline=None)
@given(seeds, st.lists(st.integers(0, 6), min_size=1, max_size=3), st.sampled_from([torch.float32, torch.float64]), st.booleans(), st.sampled_from([2, 1, 3, 0]),
       st.sampled_from([(7, 7), (1, 1), (3, 5)]), st.tuples(st.integers(1, 14), st.integers(1, 22)), st.booleans())
def test_roi_align_is_torchvisions(seed, counts, dtype, aligned, sampling, size, extent, channels_last):
    g = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(n, g).to(dtype) for n in counts]
    features = torch.randn(len(counts), 5, *extent, generator=g).to(dtype)
    if channels_last: features = features.to(memory_format=torch.channels_last)
    out, grads = [], []
    for f in (roi_align, torchvision.ops.roi_align):
        x = features.clone().requires_grad_()
        out.append(f(x, boxes, size, 1 / 16, sampling, aligned))
        weight = torch.randn(out[0].shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        (out[-1] * weight).sum().backward()
        grads.append(x.grad)
    tolerance = 5e-5 if dtype == torch.float32 else 1e-10
    for ours, theirs in (out, grads): torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_roi_align_of_no_boxes_and_of_boxes_far_outside():
    x = torch.randn(2, 3, 12, 20, requires_grad=True)
    assert roi_align(x, [torch.zeros(0, 4)] * 2, 7, 1 / 16).shape == (0, 3, 7, 7)
    out = roi_align(x, torch.tensor([[1.0, -500, -500, -400, -300], [0, 4000, 0, 4100, 90]]), 7, 1 / 16)
    assert not out.any()
    out.sum().backward()
    assert not x.grad.any()


def test_roi_align_gradients_of_first_and_second_order():
    g = torch.Generator().manual_seed(0)
    boxes = [torch.tensor([[3.0, -9.0, 25.0, 40.0]]).double(), torch.tensor([[30.0, 3.0, 90.0, 31.0]]).double()]
    x = torch.randn(2, 2, 3, 4, generator=g).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: roi_align(x, boxes, 2, 1 / 16), x)
    assert torch.autograd.gradgradcheck(lambda x: roi_align(x, boxes, 2, 1 / 16), x)


@pytest.mark.parametrize('cut', [roi_align, roi_pool, crop_resize_pool])
def test_low_precision_maps_and_autocast(cut):
    g = torch.Generator().manual_seed(0)
    boxes = [torch.tensor([[20.0, 30.0, 90.0, 170.0], [-30.0, 100.0, 40.0, 260.0], [300.0, 5.0, 304.0, 9.0]])]
    x = torch.randn(1, 8, 12, 20, generator=g).bfloat16()
    low = cut(x, boxes, 7, 1 / 16)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), cut(x.float(), boxes, 7, 1 / 16), atol=1e-2, rtol=1e-2)
    conv = torch.nn.Conv2d(8, 8, 1)
    with torch.autocast('cpu', dtype=torch.bfloat16): out = cut(conv(x.float()), boxes, 7, 1 / 16)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert torch.isfinite(conv.weight.grad).all() and conv.weight.grad.any()


def test_rois_that_make_no_sense():
    x = torch.randn(2, 3, 12, 20)
    with pytest.raises(ValueError, match=r'\(R, 5\)'): roi_align(x, torch.zeros(3, 4), 7, 1 / 16)
    with pytest.raises(ValueError, match='batch of 2'): roi_align(x, [torch.zeros(3, 4)], 7, 1 / 16)
    with pytest.raises(ValueError, match='batch holds 2'): roi_align(x, torch.tensor([[2.0, 0, 0, 9, 9]]), 7, 1 / 16)
