"Batches: every scene once per epoch, the same for any number of workers, boxes on their pixels whatever is done to a picture."
import json, math, os, pickle, signal, time
import numpy as np, pytest, torch
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from person_search_nb.files import DataError
from person_search_nb.pictures import Fit, RESIZE, resize_picture, resize_rule, ShortSide
from person_search_nb.boxes import box_iou
from person_search_nb.scenes import Scene, SceneDataset
from person_search_nb.datasets import open_dataset
from person_search_nb.augmentation import AUGMENT, Blur, Chain, Colour, DropRegions, MEAN, Noise
from person_search_nb.augmentation import augmentation, list_augmentations, register_augmentation, Warp, warp_boxes
from person_search_nb.loading import collate, make_loader, padded_share, Prepared, SceneBatches
from person_search_nb.loading import SceneLoader, SceneSampler
from person_search_nb.models import build_model

SPEC = 'synth:tiny?train_scenes=12&test_scenes=14&train_ids=20&test_ids=12&queries=10&gallery=6&size=96x160&cameras=2'
RULES = {**RESIZE, 'none': None, 'up': Fit(700, 900), 'down': ShortSide(60, 90), 'own': lambda h, w: 100 / h}


@pytest.fixture(scope='module')
def synth(): return open_dataset(SPEC, 'train', progress=False)


def write(folder, sizes=((60, 100),) * 6):
    "A COCO set of noise, one person per frame."
    (folder/'frames').mkdir(parents=True, exist_ok=True)
    data = dict(images=[], annotations=[])
    for n, (h, w) in enumerate(sizes):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (h, w, 3), np.uint8)).save(folder/'frames'/f'{n}.jpg')
        data['images'].append(dict(id=n, file_name=f'{n}.jpg', width=w, height=h))
        data['annotations'].append(dict(id=n, image_id=n, bbox=[5, 10, 20, 40], person_id=n))
    (folder/'annotations.json').write_text(json.dumps(data))
    return open_dataset(f'coco:{folder}', progress=False)


def drawn(h, w, box, size=None):
    "A data set of one black picture with one red rectangle."
    x1, y1, x2, y2 = box
    picture = np.zeros((h, w, 3), np.uint8)
    picture[y1:y2, x1:x2, 0] = 255
    return SceneDataset([Scene('drawn', (h, w), np.array([box], np.float32), np.array([3]))], lambda i: picture, size=size)


def find(image):
    "(4,) box around all pixels nearer to red than to what is around."
    y, x = torch.nonzero(image[0] - image[1] > .5 * (image[0] - image[1]).max(), as_tuple=True)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


@st.composite
def scenes(draw):
    "Picture height and width, and a box of at least 20 x 20 px in it."
    h, w = draw(st.integers(60, 400)), draw(st.integers(60, 400))
    x1, y1 = draw(st.integers(0, w - 20)), draw(st.integers(0, h - 20))
    return h, w, (x1, y1, draw(st.integers(x1 + 20, w)), draw(st.integers(y1 + 20, h)))


# -- resize rules ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', RULES)
@settings(max_examples=25)
@given(scene=scenes(), mirrored=st.booleans())
def test_boxes_follow_under_every_rule(name, scene, mirrored):
    data = drawn(*scene, size=RULES[name])
    image, target = data[0, mirrored]
    assert image.shape[1:] == data.item_size(0)
    box = target['boxes'][0]
    assert (box >= 0).all() and box[2] <= image.shape[2] and box[3] <= image.shape[1]
    # one pixel of the picture becomes `scale` px; the edge of a blurred rectangle is found to the pixel
    assert (find(image) - box).abs().max() <= 1.01 + .5 * max(0, data.scale(0) - 1)
    # the truth knows the same without reading the picture, and so do the anchors
    if not mirrored: assert torch.equal(box, data.truth(0)['boxes'][0])
    assert data.heights()[0] == pytest.approx((box[3] - box[1]).item(), abs=.51)


@given(h=st.integers(1, 5000), w=st.integers(1, 5000))
def test_rules_keep_what_they_promise(h, w):
    for height, width in ((800, 800), (1080, 1920)):
        s = Fit(height, width)(h, w)
        assert h * s <= height + 1e-6 and w * s <= width + 1e-6 and (math.isclose(h * s, height) or math.isclose(w * s, width))
    for rule in (ShortSide(600, 1000), ShortSide(900, 1500)):
        short, longest = sorted((h * rule(h, w), w * rule(h, w)))
        assert short <= rule.short + 1e-6 and longest <= rule.longest + 1e-6 and (math.isclose(short, rule.short) or math.isclose(longest, rule.longest))
        assert rule(h, w) == rule(w, h)


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 150), st.integers(1, 150), st.booleans())
def test_resizing_gives_the_pixels_of_pillow(h, w, height, width, frozen):
    picture = np.random.default_rng(h).integers(0, 256, (h, w, 3), np.uint8)
    picture.flags.writeable = not frozen
    want = np.asarray(Image.fromarray(picture).resize((width, height), Image.BILINEAR))
    got = resize_picture(picture, (height, width))
    off = np.abs(got.astype(int) - want)  # each rounds in its own order: a level, and once in ten thousands of values two
    assert got.shape == want.shape and got.dtype == np.uint8 and off.max() <= 2 and (off > 1).sum() <= max(1, off.size // 1000)


def test_rules_by_name_and_mistakes():
    assert resize_rule('hdl-prw') == resize_rule((1080, 1920)) == resize_rule([1080, 1920]) == Fit(1080, 1920) and resize_rule(None) is None
    for wrong in ('prw', 800, (800,), (800, -1), (800, .5), ('800', '800')):
        with pytest.raises(DataError, match='give .height, width. in whole px, one of hdl-cuhk-sysu'): drawn(60, 60, (0, 0, 30, 30), wrong)


# -- order and batches ----------------------------------------------------------------------------------------------

@given(n=st.integers(0, 70), size=st.integers(1, 9), shuffle=st.booleans(), drop_last=st.booleans(), pool=st.integers(1, 5), seed=st.integers(0, 9),
       epoch=st.integers(0, 5), grouped=st.booleans())
@example(n=3, size=8, shuffle=True, drop_last=True, pool=1, seed=0, epoch=0, grouped=True)
def test_every_scene_once_per_epoch(n, size, shuffle, drop_last, pool, seed, epoch, grouped):
    sizes = np.random.default_rng(n).integers(100, 900, (n, 2)) if grouped else None
    def make(): return SceneBatches(SceneSampler(n, shuffle, .5, seed), size, drop_last, sizes, pool)
    batches = make()
    epochs = [list(batches) for _ in range(epoch + 1)]
    again = make(); again.sampler.epoch = epoch
    assert list(again) == epochs[epoch], 'an epoch can be had without those before it'
    sampler = SceneSampler(n, shuffle, .5, seed); sampler.epoch = epoch
    items, found = list(sampler), sum(epochs[epoch], [])
    assert len(epochs[epoch]) == len(batches) and len(set(found)) == len(found) and set(found) <= set(items), 'grouping moves items, it does not change them'
    assert sorted(i for i, *_ in items) == list(range(n))
    if drop_last and n >= size: assert all(len(b) == size for b in epochs[epoch]) and len(found) == n // size * size
    else: assert len(found) == n
    assert sum(len(b) < size for b in epochs[epoch]) <= 1
    if not grouped: assert found == items[:len(found)]


def test_grouping_saves_padding_and_still_mixes():
    rng = np.random.default_rng(0)
    sizes = [Fit(800, 800)(h, w) * np.array([h, w]) for h, w in rng.integers(300, 1200, (600, 2))]
    def epochs(pool, shapes):
        batches = SceneBatches(SceneSampler(600, seed=2), 4, sizes=shapes, pool=pool)
        return [[[i for i, *_ in b] for b in batches] for _ in range(2)]
    plain, (first, second), everything = epochs(16, None)[0], epochs(16, sizes), epochs(150, sizes)[0]
    assert padded_share(sizes, everything) < padded_share(sizes, first) < .25 * padded_share(sizes, plain)
    pairs = lambda batches: {(i, j) for b in batches for i in b for j in b if i < j}
    assert len(pairs(first) & pairs(second)) < .1 * len(pairs(first)), 'other company in the next epoch'
    shape = [np.mean([sizes[i][1] / sizes[i][0] for i in b]) for b in first]
    assert abs(np.corrcoef(shape, np.arange(len(shape)))[0, 1]) < .3, 'shapes come in no order'


def test_padded_share_counts_what_the_model_pads():
    net = build_model('hdl-student', 2, width=.125)
    assert torch.equal(net.mean.flatten(), MEAN), 'what augmentations fill with is what the model subtracts'
    images = [torch.rand(3, 40, 70) + .01, torch.rand(3, 64, 30) + .01]
    x, sizes = net.batch(images)
    padding = torch.ones(2, 64, 70, dtype=torch.bool)
    for k, (h, w) in enumerate(sizes): padding[k, :h, :w] = False
    assert (x.abs().amax(1)[padding] == 0).all() and padded_share(sizes, [[0, 1]]) == pytest.approx(padding.float().mean().item())
    torch.testing.assert_close((x * net.std + net.mean)[0, :, -1, -1], MEAN)
    for k, i in enumerate(images): torch.testing.assert_close((x * net.std + net.mean)[k, :, :sizes[k][0], :sizes[k][1]], i)


# -- augmentation ---------------------------------------------------------------------------------------------------

def rng(n): return torch.Generator().manual_seed(n)


@settings(max_examples=60)
@given(scene=scenes(), seed=st.integers(0, 10**6), degrees=st.floats(0, 15), zoom=st.floats(0, .4), shear=st.floats(0, .2), shift=st.floats(0, .3), tilt=st.floats(0, .3))
def test_boxes_follow_every_warp(scene, seed, degrees, zoom, shear, shift, tilt):
    image, target = drawn(*scene)[0]
    warp = Warp(degrees, zoom, shear, shift, tilt)
    warped, there = warp(image, target, rng(seed))
    (box,), (share,) = warp_boxes(target['boxes'], warp.matrix(image.shape[1:], rng(seed)), image.shape[1:])
    assert warped.shape == image.shape and len(there['person_id']) == len(there['boxes']) == (share >= .5)
    if not len(there['boxes']): return
    assert there['person_id'].tolist() == [3] and torch.equal(there['boxes'][0], box)
    found, out = find(warped), torch.tensor([-1, -1, 1, 1])
    assert ((found - box) * out).max() < 1.01, 'nothing red beyond the box'
    if share == 1: assert (found - box).abs().max() < 1.7, 'and red up to its sides; a turned corner ends in less than half a pixel'
    else: assert box_iou(found[None], box[None]) > .6, 'a corner outside the picture makes the box a little too large'


def test_warp_by_hand():
    "A quarter of the picture to the right: everything moves by as many pixels, and the mean colour stands where nothing was."
    image, target = torch.rand(3, 40, 80), dict(boxes=torch.tensor([[10., 5, 30, 35], [50, 5, 78, 35]]), person_id=torch.tensor([1, 2]), camera=4)
    class Right(Warp):
        def matrix(self, size, rng=None): return torch.tensor([[1., 0, 20], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    moved, there = Right()(image, target)
    torch.testing.assert_close(moved[:, :, 20:], image[:, :, :60], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, :19], MEAN.view(3, 1, 1).expand(3, 40, 19))
    assert there['boxes'].tolist() == [[30, 5, 50, 35]] and there['person_id'].tolist() == [1], 'of the second, 10 of 28 px stay'
    assert there['camera'] == 4 and len(target['boxes']) == 2, 'what came in is not changed'
    _, both = Right(visible=.3)(image, target)
    assert both['boxes'].tolist() == [[30, 5, 50, 35], [70, 5, 80, 35]]


@pytest.mark.parametrize('step', [Colour(.1, 20., .5, .5), Blur(2.), Noise(.1)], ids=lambda s: type(s).__name__)
def test_boxes_stay_where_pixels_stay(step):
    image, target = drawn(90, 120, (30, 20, 60, 70))[0]
    image = .25 + .5 * image
    unchanged = 0
    for seed in range(20):
        changed, there = step(image, target, rng(seed))
        assert there is target and changed.shape == image.shape and 0 <= changed.min() and changed.max() <= 1
        unchanged += torch.equal(changed, image)
        if not isinstance(step, Noise): assert (find(changed) - target['boxes'][0]).abs().max() <= 1
    assert unchanged <= 2, 'a very narrow blur does nothing'


@settings(max_examples=60)
@given(scene=scenes(), seed=st.integers(0, 10**6), count=st.integers(0, 6), share=st.floats(0, .9))
def test_who_is_hidden_leaves_the_truth(scene, seed, count, share):
    h, w, (x1, y1, x2, y2) = scene
    image, target = torch.ones(3, h, w), dict(boxes=torch.tensor([[x1, y1, x2, y2]]).float(), person_id=torch.tensor([3]))
    changed, there = DropRegions(count, share)(image, target, rng(seed))
    dropped = (changed != 1).all(0)
    torch.testing.assert_close(changed[:, dropped], MEAN[:, None].expand(3, int(dropped.sum())))
    assert (changed[:, ~dropped] == 1).all()
    seen = 1 - dropped[y1:y2, x1:x2].float().mean()
    assert len(there['boxes']) == (seen >= .5) and len(image.unique()) == 1


@pytest.mark.parametrize('name', AUGMENT)
def test_empty_scenes_and_pickling(name):
    augment = pickle.loads(pickle.dumps(AUGMENT[name]))
    assert augment == AUGMENT[name]
    empty = dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64))
    for seed in range(12):
        image, there = augment(torch.rand(3, 33, 47), empty, rng(seed))
        assert image.shape == (3, 33, 47) and image.isfinite().all() and there['boxes'].shape == (0, 4) and there['person_id'].dtype == torch.int64


def test_chain_takes_each_step_by_chance():
    count = [0, 0]
    def step(k):
        def one(image, target, rng): count[k] += 1; return image, target
        return one
    for seed in range(400): Chain((step(0), step(1)), .3)(None, None, rng(seed))
    assert all(80 < c < 160 for c in count) and count[0] != 400


def test_a_chain_from_settings_is_the_chain_of_its_classes(registries):
    chain = augmentation({'colour': dict(gain=.1), 'drop-regions': {}, 'noise': dict(sigma=.05)})
    assert chain == Chain((Colour(gain=.1), DropRegions(), Noise(.05)))
    assert AUGMENT['attention-embedding'] == Chain((
        Colour(hue=10., saturation=.3, contrast=.3), Warp(degrees=4., zoom=.2, shear=.05, shift=.05, tilt=.1), Blur(1.5), Noise(.03), DropRegions(4, .15)))
    with pytest.raises(ValueError, match="unknown augment 'rain': choose one of colour, warp, blur, noise, drop-regions"): augmentation({'rain': {}})
    register_augmentation('mine')(Noise)
    assert list_augmentations()[-1] == 'mine' and augmentation({'mine': {}}) == Chain((Noise(),)) and augmentation('mine', sigma=.2) == Noise(.2)


def test_augmentation_is_a_function_of_the_draw(synth):
    data = Prepared(synth, AUGMENT['attention-embedding'])
    state = torch.get_rng_state()
    (a, ta), (b, tb), (c, _), (m, _) = data[2, False, 7], data[2, False, 7], data[2, False, 8], data[2, True, 7]
    assert torch.equal(a, b) and torch.equal(ta['boxes'], tb['boxes']) and not torch.equal(a, c) and not torch.equal(a, m)
    assert torch.equal(state, torch.get_rng_state()), 'nothing is drawn from the generator all share'
    with pytest.raises(ValueError, match="augment='none': give one of colour, attention-embedding"): make_loader(synth, augment='none')


# -- loader ---------------------------------------------------------------------------------------------------------

def flat(loader): return [[(t['image_id'], t['boxes'].tolist(), t['person_id'].tolist(), i.double().sum().item()) for i, t in zip(*batch)] for batch in loader]


@pytest.mark.parametrize('augment', [None, 'attention-embedding'])
def test_same_batches_for_any_workers(tmp_path, augment):
    data = write(tmp_path, [(60, 100), (100, 60), (80, 80), (60, 100), (100, 50), (80, 90), (64, 64)])
    make = lambda **kw: make_loader(data, 2, shuffle=True, seed=3, flip=.5, group=True, augment=augment, **kw)
    want = [flat(loader := make()), flat(loader)]
    assert want[0] != want[1] and all(sorted(i for b in epoch for i, *_ in b) == list(range(7)) for epoch in want)
    for workers in (1, 2): assert [flat(loader := make(workers=workers)), flat(loader)] == want
    resumed = make(workers=1); resumed.batch_sampler.sampler.epoch = 1
    assert flat(resumed) == want[1]
    assert flat(make_loader(data, 2, shuffle=True, seed=4, flip=.5, group=True, augment=augment)) != want[0]


def test_loader_without_shuffling_keeps_the_order(synth):
    assert [[i for i, *_ in b] for b in flat(make_loader(synth, 5))] == [list(range(5)), list(range(5, 10)), [10, 11]]
    assert len(list(make_loader(synth, 5, drop_last=True))) == 2
    images, targets = collate([synth[0], synth[-1]])
    assert isinstance(images, list) and isinstance(targets, list) and targets[1]['image_id'] == 11
    assert [t['image_id'] for _, ts in SceneLoader(synth, [[(4, False, 0)], [(2, True, 0)]]) for t in ts] == [4, 2]


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('augment', [None, 'colour'])
def test_an_unreadable_picture_is_one_line(tmp_path, workers, augment):
    data = write(tmp_path)
    (tmp_path/'frames'/'4.jpg').write_bytes((tmp_path/'frames'/'4.jpg').read_bytes()[:400])
    got = []
    with pytest.raises(DataError) as e: got += make_loader(data, 2, workers=workers, augment=augment)
    assert str(e.value).startswith(str(tmp_path/'frames'/'4.jpg') + ': cannot be decoded') and '\n' not in str(e.value) and e.value.__suppress_context__


class Broken:
    "A reader with a mistake of its own."
    def __call__(self, i): return [1, 2][i + 2]


def test_other_errors_keep_their_traceback():
    data = SceneDataset([Scene('a', (4, 4), np.zeros((0, 4)), np.zeros(0, np.int64))], Broken())
    with pytest.raises(IndexError, match=r'(?s)DataLoader worker.*in __call__.*list index out of range'): list(make_loader(data, 1, workers=1))


def read_and_wait(folder, said, begun):
    "What a terminal's command does: a group of its own, and errors where they can be read."
    os.setsid()
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    for n, _ in enumerate(make_loader(open_dataset(f'coco:{folder}', progress=False), 1, workers=2)):
        if n: begun.touch(); time.sleep(60)  # both workers have read


@pytest.mark.skipif(not hasattr(os, 'killpg'), reason='process groups')
def test_interrupt_leaves_nothing_behind(tmp_path, child):
    "Ctrl-C goes to all processes of a terminal: the main one says so once, workers say nothing and are gone."
    (tmp_path/'coco').mkdir(); write(tmp_path/'coco')
    p = child(read_and_wait, tmp_path/'coco', tmp_path/'said', tmp_path/'begun')
    while p.is_alive() and not (tmp_path/'begun').exists(): time.sleep(.05)
    os.killpg(p.pid, signal.SIGINT)
    p.join()
    said = (tmp_path/'said').read_text()
    assert p.exitcode and said.rstrip().endswith('KeyboardInterrupt') and said.count('Traceback') == 1 and '_worker_loop' not in said, said
    while True:
        try: os.killpg(p.pid, 0)
        except ProcessLookupError: break  # nobody of the group is left
        time.sleep(.05)


def test_bytes_travel_and_floats_arrive(synth):
    for item in ((3, False, 0), (3, True, 0)):
        image, target = Prepared(synth)[item]
        assert image.dtype == torch.uint8 and image.is_contiguous()
        ((got,), (t,)), = SceneLoader(synth, [[item]])
        want, there = synth[item]
        assert torch.equal(got, want) and got.dtype == torch.float32 and got.is_contiguous() and torch.equal(t['boxes'], there['boxes']) and torch.equal(target['boxes'], t['boxes'])
    ((got,), _), = SceneLoader(synth, [[(3, False, 5)]], augment=AUGMENT['colour'])
    assert (got - AUGMENT['colour'](*synth[3], rng(5))[0]).abs().max() <= .501 / 255, 'rounded to bytes, for any number of workers alike'


@pytest.mark.cuda
def test_images_go_to_the_gpu(synth):
    "Pinned on the way there."
    loader = make_loader(synth, 2, workers=1, device='cuda')
    assert all(i.is_pinned() for images, _ in super(SceneLoader, loader).__iter__() for i in images)
    for (here, _), (there, _) in zip(make_loader(synth, 2), loader):
        for a, b in zip(here, there): assert b.is_cuda and b.dtype == torch.float32 and torch.allclose(a, b.cpu(), atol=1e-6)
