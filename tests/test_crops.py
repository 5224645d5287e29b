"""Cut-outs: from which pixels they are taken, detected people beside annotated ones, what training on them moves."""
import numpy as np
import pytest
import torch

from person_search_nb.boxes import box_iou
from person_search_nb.scenes import Scene, SceneDataset
from person_search_nb.datasets import open_dataset
from person_search_nb.settings import TrainConfig
from person_search_nb.training import train
from person_search_nb.crops import crop_dataset, CropIdentity, found_boxes
from person_search_nb.models import build_model

SPEC = 'synth:tiny?train_scenes=6&train_ids=8'


def scenes(**kw): return open_dataset(SPEC, 'train', progress=False, workers=0, **kw)


def random_found(data, seed=0):
    "True boxes moved a little or much, some boxes anywhere, in no order."
    rng, image, boxes = np.random.default_rng(seed), [], []
    for i, s in enumerate(data.scenes):
        side = np.tile(s.boxes[:, 2:] - s.boxes[:, :2], 2)
        for share in (0., .1, .2, .3):
            boxes.append(s.boxes + rng.normal(0, 1, s.boxes.shape) * share * side)
            image += [i] * len(s.boxes)
        h, w = s.size
        corner = rng.uniform(0, (w - 40, h - 80), (5, 2))
        boxes.append(np.concatenate([corner, corner + (30, 70)], 1))
        image += [i] * 5
    boxes = np.concatenate(boxes)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    order = rng.permutation(len(image))
    scores = rng.uniform(0, 1, len(image)).astype(np.float32)
    return dict(det_image=np.array(image)[order], det_boxes=boxes[order].astype(np.float32), det_scores=scores)


@pytest.mark.parametrize('size', [(128, 224), (200, 500), 'hdl-cuhk-sysu'])   # smaller, smaller, larger
def test_cut_outs_come_from_the_original_pictures(size):
    plain, resized = crop_dataset(scenes(), (96, 48)), crop_dataset(scenes(size=size), (96, 48))
    assert len(plain) == len(resized) > 20
    for k in range(len(plain)):
        assert np.array_equal(plain.picture(k), resized.picture(k))
        assert plain.scenes[k].person_id == resized.scenes[k].person_id
    as_seen = crop_dataset(scenes(size=size), (96, 48), originals=False)
    assert any((as_seen.picture(k) != plain.picture(k)).any() for k in range(len(plain)))
    cached = crop_dataset(scenes(size=size, cache=True), (96, 48), cache=True, workers=0, progress=False)
    assert all(np.array_equal(plain.picture(k), cached.picture(k)) for k in range(len(plain)))


def test_a_cache_reads_each_scene_once():
    data, read = scenes(size=(128, 224)), []
    own = data.read
    data.read = lambda i: read.append(i) or own(i)
    crops = crop_dataset(data, (64, 32), cache=True, workers=0, progress=False)
    assert len(crops) > len(read) == len(set(read)) <= 6
    crops.picture(0), crops.picture(len(crops) - 1)
    assert len(read) <= 6


@pytest.mark.parametrize('iou, threshold', [(0.5, 0.5), (0.3, 0.), (0.75, 0.2)])
def test_found_people_against_a_loop(iou, threshold):
    data = scenes()
    found = random_found(data)
    image, boxes, who = found_boxes(data, found, iou, threshold)
    expected = []
    for i, box, score in zip(found['det_image'], found['det_boxes'], found['det_scores']):
        s = data.scenes[i]
        overlap = box_iou(torch.tensor(box)[None], torch.tensor(s.boxes))[0]
        if score < threshold or not len(overlap) or overlap.max() <= iou or s.person_id[overlap.argmax()] < 0: continue
        expected.append((i, box.tolist(), s.person_id[overlap.argmax()]))
    assert list(zip(image, boxes.tolist(), who)) == expected and len(expected) > 5


def by_hand(boxes, ids):
    scene = Scene('a', (100, 100), np.array(boxes, np.float32).reshape(-1, 4), np.array(ids, np.int64))
    return SceneDataset([scene], lambda i: np.zeros((100, 100, 3), np.uint8))


def test_a_detection_has_one_identity():
    detection = dict(det_image=[0], det_boxes=[[0, 0, 40, 80]], det_scores=[.9])
    near, nearer = [0, 0, 40, 64], [0, 0, 40, 72]                            # overlaps of 0.8 and 0.9
    assert found_boxes(by_hand([near, nearer], [0, 1]), detection)[2].tolist() == [1]
    assert found_boxes(by_hand([nearer, near], [1, 0]), detection)[2].tolist() == [1]
    assert found_boxes(by_hand([near, nearer], [0, -1]), detection)[2].tolist() == []   # nobody known
    assert found_boxes(by_hand([[0, 0, 40, 40]], [0]), detection)[2].tolist() == []     # exactly a half
    assert found_boxes(by_hand([], []), detection)[2].tolist() == []
    assert found_boxes(by_hand([near], [0]), detection | dict(det_scores=[.4]))[2].tolist() == []


def test_found_people_stand_beside_annotated_ones():
    data = scenes()
    found = random_found(data)
    image, boxes, who = found_boxes(data, found)
    alone, both = crop_dataset(data, (64, 32), False), crop_dataset(data, (64, 32), False, found=found)
    assert len(both) == len(alone) + len(who) > len(alone)
    row = lambda i, box, p: (int(i), *np.asarray(box, np.float32).tolist(), int(p))
    listed = sorted(row(*w, s.person_id[0]) for w, s in zip(both.read.where, both.scenes))
    true = [row(i, b, p) for i, s in enumerate(data.scenes) for b, p in zip(s.boxes, s.person_id) if p >= 0]
    assert listed == sorted([*true, *map(row, image, boxes, who)])
    assert all(both.picture(k).shape == (64, 32, 3) for k in range(len(both)))
    assert len(set(both.names)) == len(both)
    background = [s for s in crop_dataset(data, (64, 32), True, found=found).scenes if s.person_id[0] == data.num_ids]
    assert len(alone) < len(background) <= len(both)                        # as many as people, found ones too
    others = found | dict(det_image=found['det_image'] + 1)
    with pytest.raises(ValueError, match='run the detector on these scenes'): found_boxes(data, others)


@pytest.mark.parametrize('name', ['clsa', 'hdl-teacher'])
def test_training_on_cut_outs_moves_no_detector(name):
    data = scenes()
    torch.manual_seed(0)
    size = dict(crop_size=(64, 32)) if name == 'clsa' else {}
    net = build_model(name, data.num_ids, width=0.125, rpn_channels=16, **size)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    how = TrainConfig(epochs=1, batch_size=8, lr=1e-2, weight_decay=1e-2, warmup=0, device='cpu', precision='fp32')
    train(CropIdentity(net), crop_dataset(data, (64, 32), background=False), how, progress=False)
    moved = {k.split('.')[0] for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    shared = {'stem', 'blocks', 'attention', 'pooled_norm', 'region_norm', 'embedding_norm', 'id_loss'}
    assert moved == ({'reid', 'id_loss'} if name == 'clsa' else shared)   # no decay, no statistics of the detector
