"A network as a function that is sent to other processes: a pool, Ray Data."
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from person_search_nb.datasets import open_dataset
from person_search_nb.embedder import Embedder
from person_search_nb.gallery import fingerprint
from person_search_nb.model_files import save_model
from person_search_nb.systems import build_model
from person_search_nb.search import Gallery

SHIPPED = 'shipped:hdl-student-fast-taught'


@pytest.fixture(scope='module')
def scenes(): return open_dataset('synth:tiny?test_scenes=6&test_ids=4&queries=2&size=128x224&seed=3', 'gallery', progress=False)


@pytest.fixture(scope='module')
def whole(scenes): return Embedder(SHIPPED, device='cpu', batch_size=1)(dict(image=[scenes.picture(i) for i in range(6)], path=scenes.names))


def joined(batches): return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def test_in_a_pool_of_processes(scenes, whole, process_method):
    "Three batches in two processes: the rows of one call."
    embedder = Embedder(SHIPPED, device='cpu', batch_size=1)
    assert len(embedder([scenes.picture(0)])['scores']) and len(pickle.dumps(embedder)) < 1000  # loaded here, and sent without its weights
    batches = [dict(image=[scenes.picture(i) for i in (k, k + 1)], path=scenes.names[k:k + 2]) for k in (0, 2, 4)]
    with ProcessPoolExecutor(2, get_context(process_method)) as pool: rows = joined(list(pool.map(embedder, batches)))
    assert rows['scene'].tolist() == whole['scene'].tolist()
    for k in ('boxes', 'scores', 'embeddings'): np.testing.assert_allclose(rows[k], whole[k], atol=1e-3)


def test_rows_are_those_of_a_gallery(scenes, whole, tmp_path):
    people = Embedder(SHIPPED, device='cpu').gallery(whole)
    memory = Gallery.from_model(Embedder(SHIPPED, device='cpu').model, scenes, progress=False)
    sure = memory.det_scores >= .5
    assert people.model == memory.model and people.names == sorted(scenes.names) and len(people) == sure.sum()
    people.save(tmp_path/'g')
    query = whole['embeddings'][3]
    assert [(m.name, m.box.tolist()) for m in Gallery.open(tmp_path/'g').search(query, 3)] == [(m.name, m.box.tolist()) for m in people.search(query, 3)]


def test_bad_batches(tmp_path, scenes):
    embedder = Embedder(SHIPPED, device='cpu')
    with pytest.raises(ValueError, match='a batch needs a column image, of pictures, or path, of files; it has pixels'): embedder(dict(pixels=[1]))
    with pytest.raises(ValueError, match='nowhere.safetensors'): Embedder(tmp_path/'nowhere.safetensors')([scenes.picture(0)])
    (tmp_path/'broken.png').write_bytes(b'no picture')
    with pytest.warns(UserWarning, match='broken.png: left out, .*cannot be decoded'): nobody = embedder(dict(path=[tmp_path/'broken.png']))
    assert {k: v.shape for k, v in nobody.items()} == dict(scene=(0,), boxes=(0, 4), scores=(0,), embeddings=(0, embedder([scenes.picture(0)])['embeddings'].shape[1]))


def test_what_would_be_left_out_in_silence(tmp_path, scenes):
    "One path is not a list of letters, one picture no list of rows; every picture has a name, and every row all its columns."
    embedder = Embedder(SHIPPED, device='cpu')
    Image.fromarray(scenes.picture(0)).save(tmp_path/'a.png')
    for one in (str(tmp_path/'a.png'), tmp_path/'a.png', scenes.picture(0), dict(path=str(tmp_path/'a.png')), dict(image=scenes.picture(0))):
        with pytest.raises(ValueError, match='a batch holds several pictures or files; give a list'): embedder(one)
    with pytest.raises(ValueError, match='a batch has 2 pictures, and 1 names'): embedder(dict(image=[scenes.picture(0)] * 2, path=['a']))
    rows = embedder([os.fsencode(tmp_path/'a.png')])
    assert set(rows['scene']) == {str(tmp_path/'a.png')}
    with pytest.raises(ValueError, match='rows have no column scores'): embedder.gallery({k: v for k, v in rows.items() if k != 'scores'})
    with pytest.raises(ValueError, match='^rows: '): embedder.gallery(rows | dict(scores=rows['scores'][:1]))
    with pytest.raises(ValueError, match='least=7: give a score from 0 to 1'): Embedder(SHIPPED, least=7)


def test_in_ray_data(scenes, whole, tmp_path):
    "Two workers; the pictures come from files, the rows go into Parquet."
    ray = pytest.importorskip('ray')
    for i, name in enumerate(scenes.names): Image.fromarray(scenes.picture(i)).save(tmp_path/f'{i}.png')
    ray.init(num_cpus=3, include_dashboard=False)   # whom two workers leave no processor, reading waits for ever
    try:
        ds = ray.data.read_images(str(tmp_path), include_paths=True, mode='RGB')
        ds.map_batches(Embedder, fn_constructor_args=(SHIPPED,), fn_constructor_kwargs=dict(device='cpu', batch_size=1), batch_size=2, concurrency=2).write_parquet(str(tmp_path/'people'))
        rows = ray.data.read_parquet(str(tmp_path/'people')).take_all()
    finally: ray.shutdown()
    assert len(rows) == len(whole['scores'])
    rows.sort(key=lambda r: (r['scene'], -r['scores']))
    np.testing.assert_allclose([r['scores'] for r in rows], whole['scores'], atol=1e-3)
    np.testing.assert_allclose(np.stack([r['embeddings'] for r in rows]), whole['embeddings'], atol=1e-3)


def test_copies_share_a_network(tmp_path):
    "A pool sends a copy of the function with every task. A job keeps its network, another `Embedder` reads what is there now."
    file, copy = tmp_path/'m.safetensors', lambda e: pickle.loads(pickle.dumps(e))
    nets = [build_model('hdl-student-fast', 3, width=.125, rpn_channels=16, factored=True).eval() for _ in range(2)]
    save_model(nets[0], file)
    one = Embedder(file, device='cpu')
    first = copy(one).model
    save_model(nets[1], file)
    assert copy(one).model is copy(copy(one)).model is first and fingerprint(first) == fingerprint(nets[0])
    other = Embedder(file, device='cpu')
    assert fingerprint(other.model) == fingerprint(nets[1]) == fingerprint(copy(other).model)
    assert copy(other).model is not other.model   # what its owner does to it stays with it
