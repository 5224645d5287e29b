"Batches: every scene once per epoch, the same ones for any number of workers, boxes on their pixels."
import json
import numpy as np, pytest, torch
from PIL import Image
from person_search_nb.datasets import DataError, open_dataset
from person_search_nb.loading import collate, make_loader

SPEC = 'synth:tiny?train_scenes=12&test_scenes=14&train_ids=20&test_ids=12&queries=10&gallery=6&size=96x160&cameras=2'


@pytest.fixture(scope='module')
def synth(): return open_dataset(SPEC, 'train', progress=False)


def write(folder, sizes=((60, 100), (60, 100))):
    "A COCO set of noise, one person per frame."
    (folder/'frames').mkdir(parents=True, exist_ok=True)
    data = dict(images=[], annotations=[])
    for n, (h, w) in enumerate(sizes):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (h, w, 3), np.uint8)).save(folder/'frames'/f'{n}.jpg')
        data['images'].append(dict(id=n, file_name=f'{n}.jpg', width=w, height=h))
        data['annotations'].append(dict(id=n, image_id=n, bbox=[5, 10, 20, 40], person_id=n))
    (folder/'annotations.json').write_text(json.dumps(data))
    return open_dataset(f'coco:{folder}', progress=False)


def flat(loader): return [(t['image_id'], t['boxes'].tolist(), float(i.sum())) for images, targets in loader for i, t in zip(images, targets)]


def test_loader_repeats_for_any_workers(synth):
    make = lambda **kw: make_loader(synth, 5, shuffle=True, seed=3, flip=.5, **kw)
    loader = make()
    first, second = flat(loader), flat(loader)
    assert first != second and sorted(i for i, *_ in first) == list(range(12))
    other = make(workers=2)
    assert flat(other) == first and flat(other) == second
    assert flat(make_loader(synth, 5, shuffle=True, seed=4, flip=.5)) != first
    assert [i for i, *_ in flat(make_loader(synth, 5))] == list(range(12))
    assert len(list(make_loader(synth, 5, drop_last=True))) == 2


def test_collate(synth):
    images, targets = collate([synth[0], synth[-1]])
    assert isinstance(images, list) and isinstance(targets, list) and targets[1]['image_id'] == 11


def test_error_crosses_worker_processes(tmp_path):
    data = write(tmp_path)
    (tmp_path/'frames'/'1.jpg').write_bytes(b'')
    with pytest.raises(DataError, match='1.jpg: cannot be decoded'): list(make_loader(data, 2, workers=1))
