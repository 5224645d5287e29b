"""Galleries from strangers and by accident: names, fields, damaged files, two at once, what cannot be told apart from a gallery."""
import errno
import json
import os
import shutil
import struct
import time
import tracemalloc
import zipfile
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from person_search_nb.file_locks import BusyError, locked
from person_search_nb.pictures import Fit, resize_rule
from person_search_nb.model_files import shipped_trunk
from person_search_nb.models import load_model
from person_search_nb.neighbours import Approximate
from person_search_nb.manifest import FIELDS, MANIFEST, new_manifest, read_manifest, write_manifest
from person_search_nb.shards import add_shard, compact, read_shard
from person_search_nb.sources import Film, open_source, time_in
from person_search_nb.gallery import format_time
from person_search_nb.hits_page import hits_page
from person_search_nb.search import Gallery
from person_search_nb.indexing import build_gallery

MODEL = 'shipped:hdl-student-fast'


def people(seed=0, scenes=3, each=2, dim=8):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(scenes * each, dim)).astype(np.float32)
    return dict(image=np.repeat(np.arange(scenes), each), boxes=np.tile(np.float32([1, 2, 30, 80]), (scenes * each, 1)), scores=np.full(scenes * each, .9, np.float32),
                rows=rows / np.linalg.norm(rows, axis=1, keepdims=True), names=[f'{seed}-{i}.jpg' for i in range(scenes)], cameras=np.ones(scenes), times=np.full(scenes, np.nan),
                sizes=np.full((scenes, 2), 96), scenes=[[0, f'{seed}-{i}.jpg', ''] for i in range(scenes)])


def gallery(folder, shards=2):
    manifest = new_manifest('0123456789abcdef', dim=8, size=None) | dict(sources=[dict(kind='folder', path=str(folder / 'pictures'))])
    for k in range(shards): add_shard(folder, manifest, people(k))
    return folder


def changed(folder, change):
    path = folder / MANIFEST
    m = json.loads(path.read_text())
    path.write_text(json.dumps(change(m) or m))


@pytest.fixture(scope='module')
def net(): return load_model(shipped_trunk('hdl-student-fast'))


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / 'pictures').mkdir()
    for i in range(3): Image.fromarray(np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(tmp_path / f'pictures/c{i + 1}_a.png')
    return tmp_path / 'pictures'


@pytest.mark.parametrize('name', ['../victim.txt', '/etc/hostname', '000001.npz/../../victim.txt', '000009.rows.npy.txt'])
def test_files_of_a_manifest_have_names_of_their_own_pattern(tmp_path, name):
    "faults.md, row 5: more than 32 shards, or an index, named a file outside, and it was deleted."
    victim = tmp_path / 'victim.txt'
    victim.write_text('precious')
    g = gallery(tmp_path / 'g', shards=2)
    changed(g, lambda m: m['shards'][0]['bytes'].update({name: 4}))
    for use in (read_manifest, Gallery.open, compact):
        with pytest.raises(ValueError, match="field 'shards' is not what it should be"): use(g)
    g = gallery(tmp_path / 'h', shards=1)
    changed(g, lambda m: m.update(index=dict(name='hnsw', file=name, rows=6, bytes=4)))
    with pytest.raises(ValueError, match="field 'index' is not what it should be"): Gallery.open(g)
    assert victim.read_text() == 'precious'


def test_a_key_stays_in_its_folder(tmp_path, pictures):
    secret = tmp_path / 'secret.png'
    shutil.copy(next(pictures.iterdir()), secret)
    (pictures / 'link.png').symlink_to(secret)
    source = open_source(str(pictures))
    for key in ('../secret.png', str(secret), 'link.png'):
        with pytest.raises(ValueError, match='leads out|absolute|link that leads out'): source.read(key)
    assert source.read('c1_a.png').shape == (96, 128, 3)


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory): return gallery(tmp_path_factory.mktemp('fuzz') / 'g')


nothing = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)


@given(field=st.sampled_from(sorted(FIELDS)), value=nothing, inner=st.none() | st.sampled_from(['name', 'bytes', 'scenes', 'people', 'sums', 'path', 'kind']))
@settings(max_examples=150)
def test_any_manifest_is_read_or_refused_in_one_line(fuzzed, field, value, inner):
    g = fuzzed
    whole = (g / MANIFEST).read_bytes()
    def change(m):
        if inner and isinstance(m[field], list) and m[field] and isinstance(m[field][0], dict): m[field][0][inner] = value
        else: m[field] = value
    try:
        changed(g, change)
        try: Gallery.open(g).search(np.eye(8, dtype=np.float32)[0], 3)
        except ValueError as e: assert str(g) in str(e) or 'embeddings' in str(e) or 'numbers' in str(e), e
    finally: (g / MANIFEST).write_bytes(whole)


def test_deep_and_missing_manifests(tmp_path):
    g = gallery(tmp_path / 'g')
    for text in ('[' * 10 ** 5, '{}', '{"format": "person-search gallery"}', '\0'):
        (g / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match='manifest.json'): Gallery.open(g)
    for field in FIELDS:
        h = gallery(tmp_path / field)
        changed(h, lambda m: m.pop(field) and m)
        with pytest.raises(ValueError, match=f"field '{field}' is missing"): Gallery.open(h)


@pytest.mark.parametrize('damage', ['flip', 'zero', 'short', 'gone'])
@pytest.mark.parametrize('file', ['000001.npz', '000001.rows.npy'])
def test_index_makes_anew_what_is_broken(net, tmp_path, pictures, file, damage):
    "faults.md, row 17: a file of the right size with wrong bytes was the same error for ever."
    g = build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    want, path = (np.asarray(g.det_feats).copy(), list(g.names)), tmp_path / 'g' / file
    data = bytearray(path.read_bytes())
    if damage == 'gone': path.unlink()
    else:
        if damage == 'flip': data[len(data) // 2] ^= 255
        path.write_bytes(dict(flip=bytes(data), zero=bytes(len(data)), short=bytes(data[:-5]))[damage])
    if file.endswith('npz') or damage in ('zero', 'short', 'gone'):
        with pytest.raises(ValueError, match='run person-search index'): Gallery.open(tmp_path / 'g')
    again = build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    np.testing.assert_array_equal(np.asarray(again.det_feats), want[0])
    assert again.names == want[1] and Gallery.open(tmp_path / 'g').names == want[1]


def test_a_damaged_npz_gallery_is_one_line(tmp_path):
    g = Gallery.open(gallery(tmp_path / 'g'))
    g.save(tmp_path / 'g.npz')
    whole = (tmp_path / 'g.npz').read_bytes()
    for bad in (whole[:10], whole[:200], whole[:len(whole) // 2], whole[:-5], whole[:300] + b'\xff' * 40 + whole[340:], b''):
        (tmp_path / 'g.npz').write_bytes(bad)
        with pytest.raises(ValueError, match='g.npz: not a gallery file'): Gallery.load(tmp_path / 'g.npz')
    parts = dict(det_image=g.det_image, det_boxes=g.det_boxes, det_scores=g.det_scores, det_feats=np.asarray(g.det_feats), names=np.array(g.names))
    for k, v, why in (('det_image', g.det_image + 90, 'numbered from 0'), ('det_feats', np.full_like(parts['det_feats'], np.nan), 'row 0 is not finite'), ('det_boxes', g.det_boxes[:1], 'different lengths'),
                      ('names', np.array([1, 2]), 'texts')):
        np.savez(tmp_path / 'g.npz', **parts | {k: v})
        with pytest.raises(ValueError, match=why): Gallery.load(tmp_path / 'g.npz')


def test_an_archive_that_unpacks_to_gigabytes_takes_none(tmp_path):
    "Sizes are compared, and bounded, from the headers alone."
    parts = dict(det_image=np.zeros(3, int), det_boxes=np.tile(np.float32([1, 2, 30, 80]), (3, 1)), det_scores=np.ones(3, np.float32), det_feats=np.eye(3, dtype=np.float32), names=np.array(['a']))
    def refused(why, write=np.savez_compressed, file=tmp_path / 'g.npz', **changes):
        write(file, **parts | changes)
        with pytest.raises(ValueError, match=f'g.npz: not a gallery file .*{why}'): measured(lambda: Gallery.load(file))
    def measured(f):
        tracemalloc.start()
        try: return f()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2 ** 26
    zeros = np.zeros((3, 2 ** 26), np.float16)  # 384 MB of zeros, in less than one
    refused('it holds 384 MB, more than the 256 MB', det_feats=zeros)
    refused('different lengths', det_feats=np.zeros((2 ** 23, 8), np.float16))
    refused('it holds', names=np.zeros(3, 'U30000000'))
    def lying(file, **arrays):
        np.savez(file, **arrays)
        with zipfile.ZipFile(file) as z: kept = {k: z.read(k) for k in z.namelist()}
        kept['det_feats.npy'] = kept['det_feats.npy'].replace(b"'shape': (3, 3), }", b"'shape': (3, 9), }")
        with zipfile.ZipFile(file, 'w') as z:
            for k, v in kept.items(): z.writestr(k, v)
    refused('its header says 108 bytes, the archive another number', lying)
    np.savez_compressed(tmp_path / 'g.npz', **parts)
    assert len(Gallery.load(tmp_path / 'g.npz')) == 3
    g = gallery(tmp_path / 'g', shards=1)
    columns = dict(np.load(g / '000001.npz')) | dict(text=np.zeros(2 ** 29, np.uint8))
    np.savez_compressed(g / '000001.npz', **columns)
    changed(g, lambda m: m['shards'][0]['bytes'].update({'000001.npz': (g / '000001.npz').stat().st_size}))
    del columns
    with pytest.raises(ValueError, match='000001.npz: not a part of a gallery .it holds 512 MB'): measured(lambda: Gallery.open(g))


def test_rows_that_are_not_finite_are_named(tmp_path):
    g = gallery(tmp_path / 'g')
    rows = np.load(g / '000002.rows.npy')
    rows[1, 3] = np.nan
    np.save(g / '000002.rows.npy', rows)
    with pytest.raises(ValueError, match='row 7 of the embeddings is not finite'): Gallery.open(g).search(np.eye(8, dtype=np.float32)[0], 3)


def test_a_network_of_nans_indexes_nothing(net, tmp_path, pictures):
    import copy
    bad = copy.deepcopy(net)
    with torch.no_grad(): bad.deltas.weight.fill_(torch.nan); bad.score.bias.fill_(9.)
    class Says(torch.nn.Module):
        config = bad.config
        def forward(self, images): return [dict(boxes=torch.full((1, 4), torch.nan), scores=torch.ones(1), embeddings=torch.ones(1, 8)) for _ in images]
    with pytest.raises(ValueError, match=r'c1_a.png: what the network says of it is not finite'): build_gallery(Says(), pictures, tmp_path / 'g', progress=False)
    assert not (tmp_path / 'g').exists() or Gallery.open(tmp_path / 'g').names == []


def test_a_folder_that_is_no_gallery_keeps_its_files(net, tmp_path, pictures):
    "faults.md, row 4: half downloads were deleted before the error came."
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads/film.mp4.part').write_bytes(b'half')
    with pytest.raises(ValueError, match='is no gallery, and not empty'): build_gallery(net, pictures, tmp_path / 'downloads', progress=False)
    assert [p.name for p in (tmp_path / 'downloads').iterdir()] == ['film.mp4.part']
    g = gallery(tmp_path / 'g')
    (g / 'thesis.part').write_bytes(b'mine')
    with pytest.raises(ValueError, match='another network'): build_gallery(net, pictures, g, progress=False)
    assert (g / 'thesis.part').exists()


def _hold(folder, ready):
    with locked(folder, 'index'): ready.send('held'); time.sleep(600)


def test_two_at_once(net, tmp_path, pictures, process_method):
    "faults.md, row 15."
    context = get_context(process_method)
    mine, ready = context.Pipe()
    other = context.Process(target=_hold, args=(str(tmp_path / 'g'), ready), daemon=True)
    other.start()
    try:
        assert mine.recv() == 'held'
        with pytest.raises(BusyError, match=rf'in use by process {other.pid} on .* \(index\), since 20'): build_gallery(net, pictures, tmp_path / 'g', progress=False)
    finally: other.kill(); other.join()
    assert len(build_gallery(net, pictures, tmp_path / 'g', progress=False).names) == 3  # a dead process holds nothing


def test_one_bad_picture_among_many(net, tmp_path, pictures, capsys):
    for name in ('c99999999999999999999_a.png', 'C20240501123000123456789.png', 'c1s1_99999999999999999999.png'): shutil.copy(pictures / 'c1_a.png', pictures / name)
    (pictures / 'two\nlines.png').write_bytes(b'no picture')
    if os.name == 'posix': (pictures / os.fsdecode(b'\xff.png')).write_bytes((pictures / 'c1_a.png').read_bytes())
    g = build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    assert len(g.names) >= 6 and len(g.manifest['skipped']) >= 1
    said = capsys.readouterr().out
    assert len(said.strip().splitlines()) == 2 and 'two\\nlines.png' in said
    hits = g.search(np.asarray(g.det_feats[0], np.float32), 50)
    assert {m.name for m in hits} and hits_page(hits).encode()


def test_small_pictures_and_an_exported_model(tmp_path, pictures):
    pytest.importorskip('onnxruntime')
    class Particular(torch.nn.Module):
        config, matching = dict(name='toy'), 'cosine'
        def forward(self, images):
            if min(images[0].shape[-2:]) < 33: raise ValueError('a picture of 20x20 px is too small: both sides must be above 32 px')
            return [dict(boxes=torch.tensor([[1., 1, 20, 50]]), scores=torch.ones(1), embeddings=torch.eye(8)[:1]) for _ in images]
    Image.new('RGB', (20, 20)).save(pictures / 'icon.png')
    g = build_gallery(Particular(), pictures, tmp_path / 'g', progress=False)
    assert len(g.names) == 3 and 'too small' in g.manifest['skipped'][0]['why']


def test_times_beyond_all_calendars():
    assert np.isnan(time_in('c1s1_99999999999999999999.jpg')) and format_time(1e300) == '' and format_time(float('nan')) == ''
    with pytest.raises(ValueError, match='every=inf'): Film('film.mp4', float('inf'))


@pytest.mark.parametrize('name', ['gallery/evil.pt2', '/tmp/evil.pt2', 'evil.onnx', 'evil.pth', ''])
def test_a_gallery_names_no_program(net, tmp_path, pictures, command, name):
    "faults.md, row 1: a stranger's gallery named a .pt2 inside itself, and its code ran."
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False, model_file=name)
    done = command('search', '--gallery', tmp_path / 'g', '--image', pictures / 'c1_a.png', '--device', 'cpu')
    assert done.returncode == 1 and ('may name shipped models and .safetensors files only' in done.stderr or not name and 'does not say which model' in done.stderr)
    changed(tmp_path / 'g', lambda m: m.update(model_file=MODEL))
    done = command('search', '--gallery', tmp_path / 'g', '--image', pictures / 'c1_a.png', '--device', 'cpu')
    assert done.returncode == 0 and f'model: {MODEL}, as the gallery says' in done.stderr


def _hold_with_a_helper(folder, ready):
    with locked(folder, 'index'):
        helper = get_context('fork').Process(target=time.sleep, args=(600,), daemon=True)  # as a DataLoader's worker
        helper.start()
        ready.send(helper.pid); time.sleep(600)


def test_helpers_of_a_killed_process_hold_nothing(tmp_path, child):
    import signal
    mine, ready = get_context().Pipe()
    other = child(_hold_with_a_helper, str(tmp_path / 'g'), ready)  # not a daemon: those have no children
    helper = mine.recv()
    try:
        with pytest.raises(BusyError): locked(tmp_path / 'g', 'index').__enter__()
        other.kill(); other.join()
        with locked(tmp_path / 'g', 'index'): pass
    finally:
        other.kill()
        os.kill(helper, signal.SIGKILL)


@pytest.mark.parametrize('link', [os.symlink, os.link])
def test_a_lock_that_is_another_file_is_left_alone(net, tmp_path, pictures, link):
    victim = tmp_path / 'victim.txt'
    victim.write_text('precious')
    (tmp_path / 'g').mkdir()
    link(victim, tmp_path / 'g/.lock')
    with pytest.raises(OSError, match='is no lock of this library'): build_gallery(net, pictures, tmp_path / 'g', progress=False)
    assert victim.read_text() == 'precious'


@pytest.mark.parametrize('call', ['open', 'mkdir'])
def test_a_folder_that_may_only_be_read_is_said(net, tmp_path, pictures, monkeypatch, call):
    "root may write everywhere, so the refusal is made here."
    def refuse(path, *args, **kw):
        if str(path).endswith(('/g', '/.lock')): raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return plain(path, *args, **kw)
    plain = getattr(os, call)
    if call == 'open': (tmp_path/'g').mkdir()
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(PermissionError, match='/g: cannot be written .Permission denied.; change its permissions, or use another folder$'):
        build_gallery(net, pictures, tmp_path/'g', progress=False)


def test_a_street_without_people(net, tmp_path):
    (tmp_path / 'grey').mkdir()
    for k in range(2): Image.new('RGB', (128, 96), (90, 90, 90)).save(tmp_path / f'grey/{k}.png')
    for _ in range(2): g = build_gallery(net, tmp_path / 'grey', tmp_path / 'g', least=1., progress=False)
    assert len(g) == 0 and len(g.names) == 2 and Gallery.open(tmp_path / 'g').search(np.eye(g.det_feats.shape[1] or 1, dtype=np.float32)[0] if g.det_feats.shape[1] else np.zeros(0, np.float32), 3) == []
    g.save(tmp_path / 'g.npz')
    assert len(Gallery.load(tmp_path / 'g.npz')) == 0


def test_a_broken_part_of_another_source_is_not_thrown_away(net, tmp_path, pictures):
    other = tmp_path / 'other'
    shutil.copytree(pictures, other)
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    want = build_gallery(net, other, tmp_path / 'g', least=0., progress=False).names
    file = max((tmp_path / 'g').glob('*.rows.npy'))
    data = bytearray(file.read_bytes()); data[-3] ^= 255; file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r'is broken, and holds .*other; index that'): build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    assert sorted(build_gallery(net, other, tmp_path / 'g', least=0., progress=False).names) == sorted(want)


def test_a_picture_that_comes_back_is_searched(net, tmp_path, pictures):
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    (pictures / 'c2_a.png').rename(tmp_path / 'away.png')
    assert build_gallery(net, pictures, tmp_path / 'g', least=0., changed='replace', progress=False).dropped is not None
    (tmp_path / 'away.png').rename(pictures / 'c2_a.png')
    assert build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False).dropped is None


def _append(folder, k):
    for _ in range(600):
        try: return Gallery.open(folder).append(drawn(10 + k))
        except BusyError: time.sleep(.1)


def drawn(seed):
    p = people(seed)
    return Gallery(p['image'].astype(np.int32), p['boxes'], p['scores'], p['rows'], p['names'], model='0123456789abcdef')


def test_appends_at_once_lose_nobody(tmp_path):
    g = gallery(tmp_path / 'g')
    several = [get_context('fork').Process(target=_append, args=(g, k)) for k in range(4)]
    for p in several: p.start()
    for p in several: p.join()
    assert len(Gallery.open(g).names) == 6 + 4 * 3


def test_a_saved_gallery_grows(net, tmp_path, pictures):
    build_gallery(net, pictures, tmp_path / 'made', progress=False, half=False)
    saved = Gallery.open(tmp_path / 'made')
    saved.save(tmp_path / 'g')
    more = tmp_path / 'more'
    more.mkdir(); Image.new('RGB', (128, 96)).save(more / 'x.png')
    assert len(build_gallery(net, more, tmp_path / 'g', size=saved.size, progress=False).names) == 4


def test_pictures_of_other_kinds_are_refused(net, tmp_path, pictures):
    g = build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    right = np.asarray(Image.open(pictures / 'c1_a.png'))
    box = [10, 10, 50, 90]
    for picture in (right / 255., right.astype(np.uint16) * 257, right > 9, torch.from_numpy(right.copy()).permute(2, 0, 1)):
        with pytest.raises(ValueError, match='0 to 255|divide it by 255'): g.embed(net, picture, box)
    np.testing.assert_allclose(g.embed(net, torch.from_numpy(right / np.float32(255)).permute(2, 0, 1), box), g.embed(net, right, box), atol=1e-5)


def test_a_film_stands_in_a_gallery_once(net, tmp_path):
    av = pytest.importorskip('av')
    with av.open(str(tmp_path / 'yard.mp4'), 'w') as film:
        stream = film.add_stream('mpeg4', rate=5); stream.height, stream.width, stream.pix_fmt = 96, 128, 'yuv420p'
        for i in range(15): film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), 10 * i, np.uint8), format='rgb24')))
        film.mux(stream.encode())
    g = build_gallery(net, tmp_path / 'yard.mp4', tmp_path / 'g', every=1, progress=False)
    with pytest.raises(ValueError, match='every=1.*would be there twice'): build_gallery(net, tmp_path / 'yard.mp4', tmp_path / 'g', every=.5, progress=False)
    assert build_gallery(net, tmp_path / 'yard.mp4', tmp_path / 'g', every=1, progress=False).names == g.names


def film(path, size):
    av = pytest.importorskip('av')
    with av.open(str(path), 'w', format='mpegts') as out:
        stream = out.add_stream('mpeg2video', rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.max_b_frames = *size, 'yuv420p', 2
        for i in range(40):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), i * 5, np.uint8))): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)
    return path


def test_two_films_in_one_file_are_not_read_as_half(tmp_path):
    "faults.md, row 34: the frames after the clock began again were dropped in silence."
    parts = [film(tmp_path / 'a.ts', (128, 96)), film(tmp_path / 'b.ts', (160, 96))]
    assert [len(Film(p, .2).scan()) for p in parts] == [20, 20]
    (tmp_path / 'joined.ts').write_bytes(b''.join(p.read_bytes() for p in parts))
    with pytest.raises(ValueError, match='joined.ts: its clock begins again.*ffmpeg -i joined.ts'): Film(tmp_path / 'joined.ts', .2).scan()


def test_a_film_that_lies_on_its_side_comes_upright(tmp_path):
    "Telephones store their films lying, and say in the header how to turn them."
    av = pytest.importorskip('av')
    picture = np.zeros((128, 192, 3), np.uint8)
    picture[:, :40] = 255  # the left edge is on top when turned clockwise
    with av.open(str(tmp_path / 'f.mp4'), 'w') as out:
        stream = out.add_stream('mpeg4', rate=5)
        stream.height, stream.width, stream.pix_fmt = 128, 192, 'yuv420p'
        for _ in range(5): out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        out.mux(stream.encode())
    data = bytearray((tmp_path / 'f.mp4').read_bytes())
    at = data.index(b'tkhd') + 44
    data[at:at + 36] = struct.pack('>9i', 0, 65536, 0, -65536, 0, 0, 128 * 65536, 0, 1 << 30)
    (tmp_path / 'turned.mp4').write_bytes(data)
    plain, turned = (f.read(f.scan()[0].key) for f in (Film(tmp_path / 'f.mp4'), Film(tmp_path / 'turned.mp4')))
    assert plain.shape == (128, 192, 3) and turned.shape == (192, 128, 3)
    assert turned[:30].mean() > 200 > 50 > turned[60:].mean()


def small(feats=None, boxes=None, **kw):
    feats = np.eye(4, dtype=np.float32)[:2] if feats is None else feats
    boxes = np.float32([[1, 2, 30, 80]] * 2) if boxes is None else boxes
    return Gallery(np.arange(2), boxes, np.full(2, .9, np.float32), feats, ['a', 'b'], **dict(model='0123456789abcdef') | kw)


@pytest.mark.parametrize('bad, why', [(dict(boxes=np.full((2, 4), np.nan, np.float32)), 'row 0: det_boxes is not finite'), (dict(boxes=np.float32([[1, 2, 30, 80], [9, 9, 3, 3]])), 'row 1: det_boxes is not x1'),
                                      (dict(feats=np.full((2, 4), np.nan, np.float32)), 'row 0: det_feats is not finite'), (dict(feats=7 * np.eye(4, dtype=np.float32)[:2]), 'row 0: det_feats has length 7')])
def test_a_gallery_is_checked_before_it_is_written(tmp_path, bad, why):
    "It was written, and from then on refused."
    g = gallery(tmp_path / 'g', shards=1)
    before = {p.name: p.read_bytes() for p in g.iterdir()}
    people = small(**bad)
    for write in (lambda: people.save(tmp_path / 'x.npz'), lambda: people.save(tmp_path / 'x')):
        with pytest.raises(ValueError, match=why): write()
    grown = small()
    grown.save(tmp_path / 'y')
    with pytest.raises(ValueError, match=why): Gallery.open(tmp_path / 'y').append(people)
    assert len(Gallery.open(tmp_path / 'y')) == 2 and {p.name: p.read_bytes() for p in g.iterdir()} == before


def test_an_npz_gallery_knows_its_network_and_size(tmp_path, command):
    "Rows of one network were compared with the query of another, in silence."
    small(size=(96, 128)).save(tmp_path / 'x.npz')
    kept = Gallery.load(tmp_path / 'x.npz')
    assert (kept.model, kept.matching, kept.size) == ('0123456789abcdef', 'cosine', (96, 128))
    data = 'synth:tiny?train_scenes=4&test_scenes=6&train_ids=6&test_ids=4&queries=2&gallery=3&cameras=2&size=96x160'
    first = command('search', MODEL, '--data', data, '--gallery', tmp_path / 'g.npz', '--number', '2')
    assert not first.returncode, first.stderr
    other = command('search', 'shipped:hdl-student-fast-taught', '--data', data, '--gallery', tmp_path / 'g.npz', '--number', '2')
    assert other.returncode == 1 and 'was made with another network' in other.stderr
    sized = command('search', MODEL, '--data', data, '--gallery', tmp_path / 'g.npz', '--number', '2', '--size', '64x96')
    assert sized.returncode == 1 and 'scenes of another size' in sized.stderr


def test_a_name_with_a_backslash_is_read_as_written(tmp_path):
    (tmp_path / 'cam1').mkdir()
    for name, value in (('cam1/x.png', 10), ('cam1\\x.png', 200)): Image.new('RGB', (64, 64), (value,) * 3).save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert {i.name: int(source.read(i.key)[0, 0, 0]) for i in source.scan()} == {'cam1/x.png': 10, 'cam1\\x.png': 200}


@pytest.mark.skipif(os.name != 'posix', reason='Windows has no such names')
def test_a_name_with_a_colon_is_read_as_written(net, tmp_path, pictures):
    "`C:1.png` looked like a drive of Windows, and was skipped."
    shutil.copy(pictures / 'c1_a.png', pictures / 'C:1.png')
    g = build_gallery(net, pictures, tmp_path / 'g', progress=False)
    assert 'C:1.png' in g.names and not g.manifest['skipped']


@pytest.mark.parametrize('size', [(1, 1), (2, 1), (40000, 2), (2, 40000), (3000, 1)])
def test_pictures_of_extreme_shapes(net, tmp_path, pictures, command, size):
    "A cut-out 40,000 px wide and 2 high took all memory when it was enlarged to a person's height."
    wide, strange = size[0] > 20 * size[1], pictures / 'strange.png'
    Image.new('RGB', size, (90, 90, 90)).save(strange)
    g = build_gallery(net, pictures, tmp_path / 'g', progress=False)
    assert len(g.names) == 4 and not g.manifest['skipped']  # each is a scene, with nobody in it
    page = tmp_path / 'page.html'
    ran = command('search', MODEL, '--gallery', tmp_path / 'g', '--image', strange, '--out', page)
    assert ran.returncode == wide and 'Traceback' not in ran.stderr
    if wide: assert f'strange.png: {size[0]} x {size[1]} px is no cut-out of a person' in ran.stderr and 'give the box' in ran.stderr
    if size == (1, 1): return
    ran = command('search', MODEL, '--gallery', tmp_path / 'g', '--image', strange, '--box', f'0,0,{size[0]},{size[1]}', '--out', page)
    assert not ran.returncode and page.stat().st_size < 10 ** 6, ran.stderr


def test_one_data_set_has_one_name(tmp_path, monkeypatch):
    "`coco:PATH` and `coco:PATH/` stood in a gallery twice."
    (tmp_path / 'c').mkdir()
    monkeypatch.chdir(tmp_path)
    assert {open_source(s).about['path'] for s in ('coco:c', 'coco:c/', 'coco:./c', f'coco:{tmp_path}/c')} == {f'coco:{tmp_path}/c'}


def test_a_network_that_is_not_a_number_finds_nobody_in_silence(net):
    import copy
    from person_search_nb.datasets import open_dataset
    broken = copy.deepcopy(net)
    for p in broken.parameters(): p.data.fill_(float('nan'))
    scenes = open_dataset('synth:tiny?train_scenes=4&test_scenes=6&train_ids=6&test_ids=4&queries=2&gallery=3&cameras=2&size=96x160', 'gallery', progress=False)
    with pytest.raises(ValueError, match='the network: .* is not finite'): Gallery.from_model(broken, scenes)


def test_a_query_is_not_found_in_its_own_scene():
    g = small(boxes=np.float32([[1, 2, 30, 80]] * 2))
    query = np.float32([1, 0, 0, 0])
    assert [m.scene for m in g.search(query, 5)] == [0, 1]
    assert [m.scene for m in g.search(query, 5, exclude=0)] == [m.scene for m in g.search(query, 5, exclude=[0])] == [1]
    assert g.search(query, 5, exclude=[0, 1]) == []


@pytest.mark.parametrize('scenes', [[999], 2, [0, -1], ['a'], [0.5]])
def test_scenes_that_are_not_there(scenes):
    g, query = small(), np.float32([1, 0, 0, 0])
    for call in (lambda: g.search(query, scenes=scenes), lambda: g.keep(scenes)):
        with pytest.raises(ValueError, match='this gallery: has no scene .*; scenes= takes numbers from 0 to 1'): call()
    assert len(g.search(query, scenes=1)) == len(g.search(query, scenes=np.array([0]))) == 1 and g.search(query, scenes=[]) == []


@pytest.mark.parametrize('context, why', [(np.full((2, 4), np.nan), 'context: row 0 is not finite'), ([[1, 0, 0, 0], [0, np.inf, 0, 0]], 'row 1 is not finite'), (np.eye(3), 'context has shape .3, 3.'), (np.ones(4), 'has shape')])
def test_company_that_cannot_be_compared(context, why):
    with pytest.raises(ValueError, match=why): small().search(np.float32([1, 0, 0, 0]), rerank='cbgm', context=context)
    assert len(small().search(np.float32([1, 0, 0, 0]), rerank='cbgm', context=[])) == 2


def test_a_picture_that_was_skipped_is_tried_again(net, tmp_path, pictures, monkeypatch, capsys):
    "The message says which limit to raise; the picture was skipped for ever all the same."
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '12288')
    Image.new('RGB', (160, 96)).save(pictures / 'wide.png')
    (pictures / 'x.png').write_bytes(b'no picture')
    index = lambda: build_gallery(net, pictures, tmp_path / 'g', progress=False)
    assert [s['key'] for s in index().manifest['skipped']] == ['wide.png', 'x.png']
    assert 'set PERSON_SEARCH_PIXELS=15360' in capsys.readouterr().out
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '15360')
    found = index()
    assert 'wide.png' in found.names and [s['key'] for s in found.manifest['skipped']] == ['x.png']
    (pictures / 'x.png').unlink()
    assert index().manifest['skipped'] == []  # what is gone is not skipped either


@pytest.mark.parametrize('wrong', [dict(least=2), dict(least=float('nan')), dict(least='0.5'), dict(least=None), dict(shard=2.5), dict(batch_size=0), dict(size=(30000, 10)), dict(size=(20000, 20000)), dict(size=(True, 200)), dict(size=[200, False]), dict(workers=None), dict(workers=-1), dict(workers=1.5), dict(workers=True)])
def test_settings_are_checked_before_anything_is_written(net, tmp_path, pictures, wrong):
    "A manifest was written that nobody could read, and the folder was lost."
    with pytest.raises(ValueError, match=f'{list(wrong)[0]}='): build_gallery(net, pictures, tmp_path / 'g', progress=False, **wrong)
    assert not (tmp_path / 'g').exists()


def test_settings_of_other_number_types_are_written_as_numbers(net, tmp_path, pictures):
    kw = dict(least=np.float32(.5), size=[np.int64(96), 128], shard=np.int64(2), progress=False)
    assert len(build_gallery(net, pictures, tmp_path / 'g', **kw).names) == len(build_gallery(net, pictures, tmp_path / 'g', **kw).names) == 3


def test_a_network_without_a_proper_fingerprint_makes_no_gallery(tmp_path, pictures):
    class Nameless(torch.nn.Module):
        about = dict(fingerprint=5)
        def forward(self, images): return [dict(boxes=torch.zeros(0, 4), scores=torch.ones(0), embeddings=torch.zeros(0, 8)) for _ in images]
    with pytest.raises(ValueError, match="its field 'model' is not what it should be"): build_gallery(Nameless(), pictures, tmp_path / 'g', progress=False)
    assert not (tmp_path / 'g').exists()


def test_a_folder_in_a_folder_is_said(net, tmp_path, pictures, capsys):
    "Its people were there twice, and nothing was said."
    (pictures / 'sub').mkdir(); shutil.copy(pictures / 'c1_a.png', pictures / 'sub')
    def said(source, out):
        build_gallery(net, source, tmp_path / out, progress=False)
        return capsys.readouterr().out
    assert 'twice' not in said(pictures, 'g')
    assert f'holds {pictures} already, and {pictures}/sub lies in it; what both hold will be found twice' in said(pictures / 'sub', 'g')
    assert 'c1_a.png lies in it' in said(pictures / 'c1_a.png', 'g') and 'twice' not in said(pictures / 'sub', 'g')
    assert 'twice' not in said(pictures / 'sub', 'h') and f'{pictures} contains it' in said(pictures, 'h')
    shutil.copytree(pictures / 'sub', tmp_path / 'pictures2')  # its name begins alike
    assert 'twice' not in said(tmp_path / 'pictures2', 'h')


def test_what_is_forgotten_is_not_counted(net, tmp_path, pictures, capsys):
    index = lambda: build_gallery(net, pictures, tmp_path / 'g', least=0., changed='replace', progress=False)
    people = np.bincount(index().det_image, minlength=3)
    (pictures / 'c2_a.png').unlink()
    capsys.readouterr()
    g = index()
    assert f'{people[0] + people[2]:,} people in 2 scenes; 1 forgotten' in capsys.readouterr().out and len(g.names) == 3


WRONG = [(dict(times=np.full(2, 1.7e12)), 'row 0: times is beyond all calendars'), (dict(times=[1., np.inf]), 'row 1: times is beyond'), (dict(times=[1.]), r'times: .* wanted .* of shape .2,.'),
         (dict(times=[None, 1.]), 'times: holds object'), (dict(cameras=[1, 2, 3]), r'cameras: .* of shape .3,.'), (dict(cameras=['cam1', 'cam2']), 'cameras: holds <U4, not numbers'), (dict(cameras=[1.7, 1]), 'row 0: cameras is not a whole number'),
         (dict(cameras=1.5), 'cameras: holds float64, not numbers; give an array'), (dict(cameras=[1, np.nan]), 'row 1: cameras is not a whole number'), (dict(sizes=[[96, 128]]), r'sizes: .* of shape .1, 2.'), (dict(sizes=[[96, 128], [96, -1]]), 'row 1: sizes is below 0'), (dict(sizes=[[1, 2], [3]]), 'sizes: its rows are of different lengths'),
         (dict(names=[1, 2]), 'names: give a list of texts'), (dict(names=np.array(['a', 'b'])), 'names: give a list of texts'), (dict(names=[*map(Path, 'ab')]), 'names: give a list of texts'), (dict(names='ab'), 'names: give a list'), (dict(names=[]), 'row 0: det_image is no scene'),
         (dict(det_image=np.array([0, 1.7])), 'row 1: det_image is not a whole number'), (dict(det_image=np.array([0, 2 ** 32])), 'row 1: det_image is not a whole number'), (dict(det_image=np.array([0])), r'det_boxes: .* of shape .2, 4.'), (dict(det_scores=np.array([.9])), r'det_scores: .* of shape .1,.'),
         (dict(det_boxes=np.array([[1, 2, 1e300, 80]] * 2)), 'row 0: det_boxes is not finite'), (dict(det_boxes=np.array([[1, 2, 1 + 1e-12, 80]] * 2)), 'row 0: det_boxes is not x1'),
         (dict(det_feats=np.zeros(2)), r'det_feats is not .M, D.|det_feats: has shape'), (dict(model=5), 'another network|model and data are texts'), (dict(matching='taxi'), "matching 'cosine'|(compares by|this one by) taxi"), (dict(size=(0, 5)), 'in pixels')]


@pytest.mark.parametrize('wrong, why', WRONG, ids=lambda x: str(x)[:30])
def test_what_could_not_be_read_again_is_not_written(tmp_path, wrong, why):
    "Milliseconds, names that are numbers: the gallery was written, and never opened again."
    small().save(tmp_path / 'g')
    before, bad = {p.name: p.read_bytes() for p in (tmp_path / 'g').iterdir()}, replace(small(), **wrong)
    grown = Gallery.open(tmp_path / 'g')
    for write in (lambda: grown.append(bad), lambda: small().append(bad), lambda: bad.append(small()), lambda: bad.save(tmp_path / 'h'), lambda: bad.save(tmp_path / 'h.npz')):
        with pytest.raises(ValueError, match=why): write()
    assert {p.name: p.read_bytes() for p in (tmp_path / 'g').iterdir()} == before and len(Gallery.open(tmp_path / 'g')) == 2
    assert not (tmp_path / 'h').exists() and not (tmp_path / 'h.npz').exists()


def test_whatever_numbers_are_right_are_written_in_their_types(tmp_path):
    g = replace(small(), det_image=np.array([0., 1.]), det_boxes=np.array([[1, 2, 30, 80]] * 2), det_scores=np.array([1, 1]), det_feats=np.eye(4, dtype=int)[:2], cameras=[1., 2.], times=[5, np.nan], sizes=[(96, 128)] * 2, size=(np.int64(96), 128))
    g.save(tmp_path / 'g')
    g.save(tmp_path / 'g.npz')
    for back in (Gallery.open(tmp_path / 'g'), Gallery.load(tmp_path / 'g.npz')):
        assert back.det_image.tolist() == [0, 1] and back.det_boxes.tolist() == [[1, 2, 30, 80]] * 2 and back.size == (96, 128)
    assert Gallery.open(tmp_path / 'g').cameras.tolist() == [1, 2]


@pytest.mark.parametrize('half', [True, False])
def test_embeddings_are_finite_in_the_type_of_the_file(tmp_path, half):
    "100,000 is infinite in half precision."
    far = small(1e5 * np.eye(4, dtype=np.float32)[:2], matching='euclidean')
    if not half: far.save(tmp_path / 'g', half=False)
    else:
        with pytest.raises(ValueError, match='row 0: det_feats is too large for float16; write float32'): far.save(tmp_path / 'g')
        assert not (tmp_path / 'g').exists()
        small(matching='euclidean').save(tmp_path / 'h')
        with pytest.raises(ValueError, match='too large for float16'): Gallery.open(tmp_path / 'h').append(far)
        with pytest.raises(ValueError, match='row 0: rows is too large for float16'): add_shard(tmp_path / 'i', new_manifest('0'), people() | dict(rows=np.full((6, 8), 1e5)))
    if not half: assert np.asarray(Gallery.open(tmp_path / 'g').det_feats).max() == 1e5


@pytest.mark.parametrize('change', [dict(least=2), dict(least=float('nan')), dict(size=(0, 0)), dict(dtype='int8'), dict(model=7), dict(model_file=Path('x')), dict(sources=[dict(kind='tape', path='x')])])
def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path, change):
    g = gallery(tmp_path / 'g', shards=1)
    before = {p.name: p.read_bytes() for p in g.iterdir()}
    for write in (lambda m: write_manifest(g, m), lambda m: add_shard(g, m, people(1))):
        with pytest.raises(ValueError): write(read_manifest(g) | change)
    with pytest.raises(ValueError, match='holds embeddings of 8 numbers, these have 4'): add_shard(g, read_manifest(g), people(1, dim=4))
    assert {p.name: p.read_bytes() for p in g.iterdir()} == before


def test_forgotten_scenes_stay_forgotten(tmp_path):
    "Saved or appended elsewhere, the people of pictures that were replaced were found again."
    g = gallery(tmp_path / 'g')
    changed(g, lambda m: m.update(dropped=[[0, '0-1.jpg|'], [0, '1-2.jpg|']]))
    mine, query = Gallery.open(g), people()['rows'][2]
    def found(g): return [(m.name, round(m.similarity, 2), m.box.tolist()) for m in g.search(query, 20)]
    want = found(mine)
    assert len(want) == 8 and not {'0-1.jpg', '1-2.jpg'} & {name for name, *_ in want}
    mine.save(tmp_path / 'copy')
    mine.save(tmp_path / 'x.npz')
    nobody = Gallery(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 8)), model=mine.model)
    nobody.save(tmp_path / 'grown')
    for there in (Gallery.open(tmp_path / 'copy'), Gallery.load(tmp_path / 'x.npz'), Gallery.open(tmp_path / 'grown').append(mine), nobody.append(mine), nobody.append(nobody).append(mine)): assert found(there) == want
    nobody.append(mine).save(tmp_path / 'again')
    again = Gallery.open(tmp_path / 'again')
    assert found(again) == want and again.names == ['0-0.jpg', '0-2.jpg', '1-0.jpg', '1-1.jpg'] and not Gallery.open(g).append(again) is None
    assert len(found(Gallery.open(g))) == 16


def test_whoever_is_appended_is_in_the_search_of_an_index():
    "In memory, the index of the first gallery was searched alone."
    pytest.importorskip('faiss')
    first, second = drawn(0), drawn(1)
    grown = first.build_index('hnsw', progress=False).append(second)
    assert grown.search(second.det_feats[0], 1)[0].detection == len(first)


def filmed(): return replace(drawn(0), cameras=[1, 2, 2], times=[0., 60., np.nan])


@pytest.mark.parametrize('asked, found', [(dict(scenes=np.array([False, False, True])), [2]), (dict(scenes=[True, False, True]), [0, 2]), (dict(exclude=np.array([True, True, False])), [2]), (dict(exclude={0, 1}), [2]), (dict(exclude=frozenset([2])), [0, 1]),
                                          (dict(scenes={1, 2}), [1, 2]), (dict(scenes=range(2)), [0, 1]), (dict(camera={2, 3}), [1, 2]), (dict(camera=np.int64(1)), [0]), (dict(camera=set()), []), (dict(exclude=[]), [0, 1, 2]), (dict(time=[0, None]), [0, 1]),
                                          (dict(time=np.array([30., np.inf])), [1]), (dict(score_threshold=1), []), (dict(number=np.int64(9)), [0, 1, 2])], ids=str)
def test_filters_of_every_form(asked, found):
    "A mask of scenes was read as the numbers 0 and 1, and a set as one thing that is in no gallery."
    g = filmed()
    assert sorted({m.scene for m in g.search(g.det_feats[0], **dict(number=6) | asked)}) == found


@pytest.mark.parametrize('asked, why', [(dict(exclude='1.jpg'), 'has no scene 1.jpg; exclude= takes numbers'), (dict(exclude=[3]), 'has no scene 3; exclude='), (dict(exclude=True), 'exclude= is a mask of 1'), (dict(scenes=['1.jpg']), 'has no scene .*1.jpg'),
                                        (dict(scenes=np.ones(4, bool)), 'has 3 scenes, and scenes= is a mask of 4'), (dict(scenes=[[0], [1, 2]]), 'has no scene'), (dict(scenes={'a'}), 'has no scene'), (dict(camera='2'), "camera='2': give the number"),
                                        (dict(camera=[1.5]), 'give the number of a camera'), (dict(camera=True), 'camera=True: give the number'), (dict(time=5), 'time=5: give .from, to. in seconds'), (dict(time=('2024-01-01', None)), 'give .from, to.'),
                                        (dict(time=(np.nan, None)), 'give .from, to.'), (dict(time='ab'), 'give .from, to.'), (dict(time=(1, 2, 3)), 'give .from, to.'), (dict(time=(0, 10 ** 400)), 'give .from, to.'), (dict(time=(1j, None)), 'give .from, to.'), (dict(score_threshold=5), 'score_threshold=5: give a score, from 0 to 1'),
                                        (dict(score_threshold='0.5'), 'give a score'), (dict(score_threshold=np.nan), 'give a score'), (dict(number=2.5), 'number=2.5: give how many matches, a whole number'), (dict(number='3'), 'give how many'), (dict(number=True), 'give how many'),
                                        (dict(rerank='k-reciprocal', top=0), 'top=0: give how many')], ids=str)
def test_filters_that_are_none(asked, why):
    g = filmed()
    with pytest.raises(ValueError, match=why): g.search(g.det_feats[0], **asked)


def test_cameras_and_times_that_are_not_those_of_the_scenes(tmp_path):
    "A gallery without cameras, written and opened, answered a search by camera with nobody."
    g = drawn(0)
    g.save(tmp_path / 'g')
    for there in (g, Gallery.open(tmp_path / 'g')):
        for filters in (dict(camera=2), dict(time=(0, None))):
            with pytest.raises(ValueError, match='does not know the'): there.search(g.det_feats[0], **filters)
    with pytest.raises(ValueError, match='has 3 scenes, and cameras of shape .2,.'): replace(g, cameras=[1, 2]).keep(camera=1)
    with pytest.raises(ValueError, match='has 3 scenes, and times of shape .4,.'): replace(g, times=np.arange(4.)).keep(time=(0, 1))


def test_a_cut_out_is_enlarged_to_people_of_scenes_whose_size_is_known(net, tmp_path, pictures):
    "Sizes that were not known are written as 0 x 0, and a person there was infinitely high."
    rows = np.eye(320, dtype=np.float32)[:2]
    g = small(rows, model='', size='faster-rcnn')
    g.save(tmp_path / 'none')
    g.append(replace(g, sizes=[[96, 128]] * 2)).save(tmp_path / 'lost')
    replace(g, sizes=[[0, 0], [300, 400]]).save(tmp_path / 'some')
    for name in ('none', 'lost', 'some'): assert len(Gallery.open(tmp_path / name).find(net, pictures / 'c1_a.png', number=2)) == 2


def test_scenes_of_one_name_are_told_apart(net, tmp_path, pictures, command):
    "Two folders with a 0001.png each: both hits looked the same, and the name stood for the first."
    other = tmp_path / 'other'
    other.mkdir()
    shutil.copy(pictures / 'c2_a.png', other / 'c1_a.png')
    for folder in (pictures, other): build_gallery(net, folder, tmp_path / 'g', progress=False)
    g = Gallery.open(tmp_path / 'g')
    first, last = (g.names.index('c1_a.png'), 3)
    assert g.names[last] == 'c1_a.png' and g.origin(last) == str(other)
    with pytest.raises(ValueError, match=f'2 scenes are called c1_a.png: {first} .*pictures, {last} .*other; give the number, or the file'): g.seen('c1_a.png')
    assert (g.seen(last)[1] == g.seen(other / 'c1_a.png')[1]).all() and g.seen('c2_a.png')[0] == 'c2_a.png'
    for number in (-1, 4, np.int64(99)):
        with pytest.raises(ValueError, match=f'has no scene {number}; there are 4, numbered from 0'): g.seen(number)
    found = replace(g, det_image=np.arange(4), det_boxes=np.float32([[1, 2, 30, 80]] * 4), det_scores=np.ones(4), det_feats=np.eye(4, dtype=np.float32)).search(np.float32([.1, .3, .5, .9]) / np.sqrt(1.16))
    assert [m.where for m in found if m.scene in (first, last)] == [f'c1_a.png (scene {last} of {other})', f'c1_a.png (scene {first} of {pictures})']
    assert {m.where for m in found} >= {'c2_a.png', 'c3_a.png'} and hits_page(found).count('(scene ') == 2


def test_a_replaced_picture_is_seen_under_its_name(net, tmp_path, pictures):
    "The forgotten version was meant, and could not be read."
    build_gallery(net, pictures, tmp_path / 'g', progress=False)
    Image.new('RGB', (128, 96), (7, 7, 7)).save(pictures / 'c1_a.png')
    g = build_gallery(net, pictures, tmp_path / 'g', changed='replace', progress=False)
    assert g.names.count('c1_a.png') == 2 and (g.seen('c1_a.png')[1] == 7).all()


def test_the_command_line_tells_scenes_of_one_name_apart(capsys):
    from person_search_nb.search_commands import _print_matches
    g = drawn(0)
    _print_matches(g.append(g).search(g.det_feats[0], 2, score_threshold=0))
    assert [line.split('  ')[3] for line in capsys.readouterr().out.splitlines()] == [f'{g.names[0]} (scene 0)', f'{g.names[0]} (scene 3)']


@pytest.mark.parametrize('kind', ['npz', 'rows.npy', 'hnsw'])
def test_links_out_of_a_gallery_are_not_followed(tmp_path, monkeypatch, kind):
    if kind == 'hnsw': pytest.importorskip('faiss')
    drawn(0).save(tmp_path / 'g')
    g = Gallery.open(tmp_path / 'g')
    if kind == 'hnsw': g.build_index('hnsw', progress=False)
    opened, file = Gallery.open(tmp_path / 'g'), next((tmp_path / 'g').glob(f'*.{kind}'))
    outside = file.rename(tmp_path / 'outside')
    file.symlink_to(outside)
    uses = [lambda: Gallery.open(tmp_path / 'g'), lambda: opened.engine if kind == 'hnsw' else read_shard(tmp_path / 'g', opened.manifest['shards'][0], opened.manifest)]
    for use in uses:
        with pytest.raises(ValueError, match=f'{file.name}. is a link that leads out of .*PERSON_SEARCH_LINKS=follow'): use()
    monkeypatch.setenv('PERSON_SEARCH_LINKS', 'follow')
    for use in uses: use()
    monkeypatch.delenv('PERSON_SEARCH_LINKS')
    file.unlink()
    outside.rename(tmp_path / 'g/mine')
    file.symlink_to('mine')
    for use in uses: use()  # within the folder


HEADERS = [b'\0' * 128, b'\x93NUMPY\x01\0\xff\xff' + b'(' * 2 ** 16, b"\x93NUMPY\x01\0v\0" + b"{1: 2, 'a': 3}".ljust(117) + b'\n', b'\x93NUMPY\x09\0v\0' + b' ' * 118]


@pytest.mark.parametrize('header', HEADERS, ids=['zeros', 'long', 'mixed', 'version'])
def test_no_message_advises_to_load_pickles(tmp_path, header):
    "A file of zeros: numpy's own words advise to allow pickles, which run code."
    drawn(0).save(tmp_path / 'g')
    rows = next((tmp_path / 'g').glob('*.rows.npy'))
    rows.write_bytes((header + b' ' * 999)[:rows.stat().st_size])
    drawn(0).save(tmp_path / 'x.npz')
    with zipfile.ZipFile(tmp_path / 'x.npz') as z: parts = {n: z.read(n) for n in z.namelist()}
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w') as z:
        for n, data in parts.items(): z.writestr(n, header + b' ' * 999 if n == 'det_feats.npy' else data)
    (tmp_path / 'z.npz').write_bytes(bytes((tmp_path / 'x.npz').stat().st_size))
    for file in (rows.parent, tmp_path / 'y.npz', tmp_path / 'z.npz'):
        with pytest.raises(ValueError) as e: Gallery.open(file)
        text = str(e.value)
        assert file.name in text and 'pickle' not in text and '\n' not in text and ('z.npz' in text or 'does not begin as an array does' in text or 'is of another version (9, 0)' in text), text
    (tmp_path / 'w.npz').write_bytes(b'#!/bin/sh' + (tmp_path / 'x.npz').read_bytes())
    assert len(Gallery.load(tmp_path / 'w.npz')) == 6  # zip files may begin with anything


def test_a_gallery_keeps_its_size_cameras_and_times_in_one_file(tmp_path):
    "A rule of resizing was forgotten, so pictures were searched at another scale; cameras and times were not written."
    g = replace(small(), size=Fit(96, 168), cameras=np.array([1, 2]), times=np.array([5., np.nan]), sizes=np.array([[96, 128]] * 2))
    for name in ('g.npz', 'g'):
        g.save(tmp_path / name)
        back = (Gallery.load if name == 'g.npz' else Gallery.open)(tmp_path / name)
        assert back.size == (96, 168) and back.cameras.tolist() == [1, 2] and back.times[0] == 5 and back.sizes.tolist() == [[96, 128]] * 2
        assert [m.scene for m in back.search(np.float32([1, 0, 0, 0]), camera=2)] == [1]
    replace(small(), size=resize_rule('faster-rcnn')).save(tmp_path / 'named.npz')
    assert Gallery.load(tmp_path / 'named.npz').size == 'faster-rcnn'
    with pytest.raises(ValueError, match='size is a function, which no file can hold'): replace(small(), size=lambda h, w: .5).save(tmp_path / 'h.npz')
    assert not (tmp_path / 'h.npz').exists()


@pytest.mark.parametrize('box', [[1, 2, 3], [[1, 2, 30, 40], [5, 6, 30, 40]], [1, 2, 30, 40, .9]])
def test_a_query_is_one_box(net, tmp_path, pictures, box):
    "The first of several boxes was taken in silence, and five numbers raised numpy's error."
    g = build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    with pytest.raises(ValueError, match='the query box has shape .*; give one, x1, y1, x2, y2'): g.embed(net, 0, box)
    assert g.embed(net, 0, [[1, 2, 30, 40]]).shape == g.embed(net, 0, [1, 2, 30, 40]).shape


def test_the_command_line_counts_whom_it_searches(net, tmp_path, pictures, capsys):
    "Forgotten people were counted among those in whom nobody was found."
    from person_search_nb.search_commands import _nobody
    index = lambda: build_gallery(net, pictures, tmp_path / 'g', least=0., changed='replace', progress=False)
    people = np.bincount(index().det_image, minlength=3)
    (pictures / 'c2_a.png').unlink()
    index()
    capsys.readouterr()
    _nobody(Gallery.open(tmp_path / 'g'))
    assert f'nobody: {people[0] + people[2]:,} people in the gallery, of cameras [1' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['000001.npz', '000001.jpg', '000001.rows.npy', 'notes.txt'])
def test_a_folder_of_numbered_files_is_no_gallery(net, tmp_path, pictures, name):
    "Someone's 000001.npz was overwritten, and a gallery put among pictures called 000001.jpg."
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / name).write_bytes(b'precious')
    for write in (lambda: drawn(0).save(tmp_path / 'mine'), lambda: build_gallery(net, pictures, tmp_path / 'mine', progress=False)):
        with pytest.raises(ValueError, match=f'mine: is no gallery, and not empty .it holds {name}.; choose another folder'): write()
    assert [p.name for p in (tmp_path / 'mine').iterdir()] == [name] and (tmp_path / 'mine' / name).read_bytes() == b'precious'


def test_what_a_killed_build_left_is_cleared(net, tmp_path, pictures):
    (tmp_path / 'g').mkdir()
    for name in ('manifest.json.12.part', '000001.rows.npy.12.part'): (tmp_path / 'g' / name).write_bytes(b'half')
    build_gallery(net, pictures, tmp_path / 'g', progress=False)
    assert not list((tmp_path / 'g').glob('*.part'))


def test_an_index_is_no_single_file(net, tmp_path, pictures):
    "A folder called g.npz was made, and could not be opened."
    with pytest.raises(ValueError, match='g.npz: a name that ends in .npz is one file'): build_gallery(net, pictures, tmp_path / 'g.npz', progress=False)
    assert not (tmp_path / 'g.npz').exists()


def coco(folder, names, cameras=None):
    "A COCO data set of pictures that may or may not be there yet."
    folder.mkdir(exist_ok=True)
    for name in set(names) - {p.name for p in folder.iterdir()}:
        Image.fromarray(np.random.default_rng(len(name) + ord(name[0])).integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(folder / name)
    images = [dict(id=i, file_name=name, width=128, height=96, camera=(cameras or {}).get(name, 1)) for i, name in enumerate(names)]
    boxes = [dict(id=i, image_id=i, bbox=[10, 10, 30, 70], category_id=1, person_id=1) for i in range(len(names))]
    (folder / 'annotations.json').write_text(json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=1, name='person')])))
    return f'coco:{folder}/annotations.json'


def shown(g):
    "Names of the scenes that are searched, in the order of the alphabet."
    return sorted(x for i, x in enumerate(g.names) if g.dropped is None or i not in g.dropped)


def test_a_picture_that_was_replaced_and_put_back_is_there_once(net, tmp_path, pictures):
    "Its old row was revived, and it was embedded a second time."
    again = lambda: build_gallery(net, pictures, tmp_path / 'g', least=0., changed='replace', progress=False)
    first, old = again(), pictures / 'c2_a.png'
    stamp, data = old.stat(), old.read_bytes()
    Image.new('RGB', (128, 96)).save(old)
    again()
    old.write_bytes(data); os.utime(old, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    g = again()
    assert shown(g) == first.names and len(g.names) == 4
    Image.new('RGB', (64, 48)).save(old); again()   # and a third picture after the first
    old.unlink()
    assert shown(again()) == ['c1_a.png', 'c3_a.png']


def test_a_data_set_that_shrank_and_grew_again_holds_everyone_once(net, tmp_path):
    again = lambda names: build_gallery(net, coco(tmp_path / 'cc', names), tmp_path / 'g', least=0., changed='replace', progress=False)
    all_names = ['a.png', 'bb.png', 'ccc.png']
    again(all_names)
    assert shown(again(['a.png', 'ccc.png'])) == ['a.png', 'ccc.png']
    assert shown(again(all_names)) == all_names
    old = tmp_path / 'cc/bb.png'
    stamp, data = old.stat(), old.read_bytes()
    old.unlink(); assert shown(again(['a.png', 'ccc.png'])) == ['a.png', 'ccc.png']
    Image.new('RGB', (128, 96)).save(old); assert shown(again(all_names)) == all_names
    old.write_bytes(data); os.utime(old, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert shown(again(all_names)) == all_names


def test_galleries_of_two_sizes_are_not_joined(tmp_path):
    "People of another scale are compared badly, and the gallery could hold one rule only."
    saved = lambda name, size: (small(size=size).save(tmp_path / name), Gallery.open(tmp_path / name))[1]
    for a, b in ((small(size=(96, 168)), small(size=(90, 160))), (small(size=(96, 168)), small(size='faster-rcnn')), (saved('a', (96, 168)), small(size=(90, 160))), (small(size=(96, 168)), small(read=lambda i: None))):
        with pytest.raises(ValueError, match='the other gallery was made with size=.*, this one with size=.*make both with one size'): a.append(b)
    for a, b in ((small(size=Fit(96, 168)), small(size=(96, 168))), (small(size=[96, 168]), small(size=(96, 168))), (small(size='hdl-prw'), small(size=(1080, 1920))), (saved('b', Fit(96, 168)), small(size=(96, 168))), (small(size=(96, 168)), small())):
        assert len(a.append(b)) == 4


def test_a_gallery_that_was_stopped_before_its_first_shard(tmp_path):
    write_manifest((tmp_path / 'g').mkdir() or tmp_path / 'g', new_manifest('0123456789abcdef'))
    g = Gallery.open(tmp_path / 'g')
    with pytest.raises(ValueError, match='g: holds nobody yet; run person-search index'): g.search(np.eye(4)[0])
    assert len(g.append(small())) == 2 and len(Gallery.open(tmp_path / 'g').search(np.eye(4)[0])) == 2
    nobody = Gallery(np.zeros(0, int), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 0), np.float32), [], model='0123456789abcdef')
    assert nobody.append(small()).search(np.eye(4)[1])[0].name == 'b'


def test_embeddings_in_a_list_are_said(tmp_path):
    small().save(tmp_path / 'g')
    for g in (small(), Gallery.open(tmp_path / 'g')):
        with pytest.raises(ValueError, match='the other gallery: det_feats: has shape .., wanted .2, D.'): g.append(small(feats=np.eye(4)[:2].tolist()))


def test_a_gallery_that_was_moved_leaves_no_folder_behind(tmp_path):
    small().save(tmp_path / 'old')
    g = Gallery.open(tmp_path / 'old')
    (tmp_path / 'old').rename(tmp_path / 'new')
    for use in (lambda: g.append(small()), lambda: g.build_index('exact')):
        with pytest.raises(ValueError, match='old: the gallery is not there any more; open it again where it lies now'): use()
    assert not (tmp_path / 'old').exists()


@pytest.mark.parametrize('there', ['page', 'folder', 'link', 'nowhere'])
def test_a_page_of_somebody_else_is_not_overwritten(net, tmp_path, pictures, command, there):
    "`search --out index.html` took the place of a site's first page."
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    page, site = tmp_path / 'hits.html', tmp_path / 'site.html'
    search = lambda: command('search', MODEL, '--gallery', tmp_path / 'g', '--image', pictures / 'c1_a.png', '--box', '1,2,60,90', '--out', page)
    assert not search().returncode and not search().returncode and 'looked for' in page.read_text()  # its own is written anew
    page.unlink()
    site.write_text('<!doctype html><title>mine</title>')
    if there == 'page': shutil.copy(site, page)
    elif there == 'folder': page.mkdir()
    else: page.symlink_to(site if there == 'link' else tmp_path / 'gone')
    ran = search()
    assert ran.returncode and 'hits.html: is there already, was not written by this command, and would be lost; give another name' in ran.stderr
    assert site.read_text().endswith('mine</title>') and (there != 'page' or page.read_text() == site.read_text())


CAMERAS = [0, -1, 1]


def by_camera(tmp_path, way):
    "A gallery of three scenes, of camera 0, of one that is not known, and of camera 1, that has gone a way."
    g, folder = replace(drawn(0), cameras=CAMERAS), tmp_path / 'g'
    if way == 'memory': return g
    if way == 'joined': return replace(drawn(0), cameras=CAMERAS).append(drawn(1))
    g.save(tmp_path / 'g.npz' if way == 'npz' else folder)
    if way == 'npz': return Gallery.load(tmp_path / 'g.npz')
    if way == 'appended': Gallery.open(folder).append(drawn(1))
    if way == 'compact':
        Gallery.open(folder).append(drawn(1))
        compact(folder, most=1)
        assert len(read_manifest(folder)['shards']) == 1
    if way == 'hnsw':
        pytest.importorskip('faiss')
        Gallery.open(folder).build_index('hnsw', progress=False)
    return Gallery.open(folder)


@pytest.mark.parametrize('way', ['memory', 'joined', 'npz', 'folder', 'appended', 'compact', 'hnsw'])
def test_camera_0_is_a_camera_and_an_unknown_one_is_none(tmp_path, way, capsys):
    "Both were 0: what camera 0 took was printed without a camera, and a search by it found what no camera is known of."
    from person_search_nb.search_commands import _nobody, _print_matches
    g = by_camera(tmp_path, way)
    assert np.asarray(g.cameras).tolist() == CAMERAS + [-1] * (len(g.names) - 3)
    query = g.det_feats[0]
    scenes = lambda **asked: {m.scene for m in g.search(query, 99, score_threshold=0, **asked)}
    assert scenes(camera=0) == {0} and scenes(camera=[0, 1]) == {0, 2} and scenes(camera=1) == {2} and scenes() == set(range(len(g.names)))
    with pytest.raises(ValueError, match='camera=-1: give the number of a camera, from 0'): scenes(camera=-1)
    found = g.search(query, 99, score_threshold=0, scenes=[0, 1, 2])
    assert {m.scene: m.camera for m in found} == dict(enumerate(CAMERAS))
    capsys.readouterr()
    _print_matches(found)
    told = [f'  camera {m.camera}' if m.scene != 1 else '' for m in found]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(']')[1] for line in lines] == told and 'camera -1' not in hits_page(found) and 'camera 0' in hits_page(found)
    _nobody(g)
    assert 'in the gallery, of cameras [0, 1];' in capsys.readouterr().err


def test_camera_0_of_pictures_data_sets_and_films(net, tmp_path, pictures):
    assert [i.camera for i in open_source(coco(tmp_path / 'cc', ['a.png', 'bb.png', 'ccc.png'], {'a.png': 0, 'bb.png': -1})).scan()] == [0, -1, 1]
    (pictures / 'c2_a.png').rename(pictures / 'yard.png'), (pictures / 'c3_a.png').rename(pictures / 'cam0_a.png')
    for source in (pictures, f'coco:{tmp_path}/cc'):
        g = build_gallery(net, source, tmp_path / 'g', least=0., progress=False)
        scenes = g.dataset().scenes
        assert sorted(g.cameras[-3:]) == [-1, 0, 1] and [s.camera for s in scenes] == g.cameras.tolist()


def test_galleries_where_an_unknown_camera_was_0_are_not_read(tmp_path):
    g = gallery(tmp_path / 'g')
    changed(g, lambda m: m.update(version=1))
    with pytest.raises(ValueError, match='manifest.json: has version 1, this library reads 2; index the pictures again, into another folder'): Gallery.open(g)
    with pytest.raises(ValueError, match='row 1: cameras is no camera; give a number from 0, -1 where it is not known'): replace(drawn(0), cameras=[0, -2, 1]).check()


@pytest.mark.parametrize('engine', ['exact', 'hnsw'])
def test_corrected_cameras_are_taken(net, tmp_path, capsys, engine):
    "The gallery kept the old ones, and the way to the new was to embed everything again."
    if engine == 'hnsw': pytest.importorskip('faiss')
    names = ['a.png', 'bb.png', 'ccc.png']
    def index(cameras, out='g', more=(), **kw):
        return build_gallery(net, coco(tmp_path / 'cc', [*names, *more], cameras), tmp_path / out, least=0., shard=2, progress=False, **kw)
    before = index({'a.png': -1}, engine=engine)
    before = replace(before, det_feats=np.array(before.det_feats), read=None)
    capsys.readouterr(), index({'a.png': -1})
    assert 'another camera' not in capsys.readouterr().out
    kept, embedded = set((tmp_path / 'g').iterdir()), []
    watched = net.register_forward_pre_hook(lambda net, args: embedded.extend(args[0]))
    g = index({'a.png': 7, 'ccc.png': 0})
    said = capsys.readouterr().out
    assert 'g: 2 scenes have another camera now than when they were indexed, first a.png (camera 7, before an unknown camera): the gallery takes the new' in said
    assert g.cameras.tolist() == [7, 1, 0] == index({'a.png': 7, 'ccc.png': 0}, 'h').cameras.tolist() and len(embedded) == 3  # of h
    for k in ('det_image', 'det_boxes', 'det_scores', 'det_feats', 'times', 'sizes'): np.testing.assert_array_equal(getattr(before, k), np.asarray(getattr(g, k)))
    assert g.names == before.names and len(list((tmp_path / 'g').iterdir())) == len(kept) and bool(g.engine) == (engine == 'hnsw')
    assert {m.scene for m in g.search(g.det_feats[0], 9999, score_threshold=0, camera=7)} == {0}
    g = index({'a.png': 7, 'ccc.png': -1, 'dddd.png': 3}, more=['dddd.png'])  # with what is new
    assert g.cameras.tolist() == [7, 1, -1, 3] and len(embedded) == 4
    watched.remove()
    assert 'first ccc.png (an unknown camera, before camera 0)' in capsys.readouterr().out


def test_scenes_of_another_name_are_said(net, tmp_path, capsys):
    "What has another name may be another scene: its camera is not taken."
    index = lambda name, camera: build_gallery(net, coco(tmp_path / 'cc', [name], {name: camera}), tmp_path / 'g', least=0., progress=False)
    index('a.png', 1)
    (tmp_path / 'cc/a.png').rename(tmp_path / 'cc/b.png')
    assert index('b.png', 2).cameras.tolist() == [1]
    assert 'g: 1 scenes have another name now than when they were indexed, first b.png (before a.png); the gallery keeps the old' in capsys.readouterr().out


def test_a_source_that_was_moved_is_said(net, tmp_path, pictures, capsys):
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    pictures.rename(tmp_path / 'moved')
    capsys.readouterr()
    build_gallery(net, tmp_path / 'moved', tmp_path / 'g', least=0., progress=False)
    said = f'{pictures} is gone, and 3 of its scenes have the names of scenes in {tmp_path}/moved, first c1_a.png'
    assert said in capsys.readouterr().out
    build_gallery(net, tmp_path / 'moved', tmp_path / 'g', least=0., progress=False)
    assert 'is gone' not in capsys.readouterr().out


@pytest.mark.parametrize('name, rows', [('ivf-pq', 3), ('ivf-pq', 15), ('ivf-pq', 0), ('hnsw', 0)])
def test_an_index_over_too_few_rows_is_said(name, rows):
    pytest.importorskip('faiss')
    feats = np.eye(16, dtype=np.float32)
    with pytest.raises(ValueError, match=f"{name}: is built over .* rows and more, here are {rows}; take engine='exact'"): Approximate.build(name, feats[:rows], progress=False)
    assert Approximate.build(name, feats, progress=False).search(feats[:1], 1)[1].tolist() == [[0]]


def _described(file, change):
    "Write an .npz gallery again, saying something else about itself."
    with np.load(file) as old: arrays = dict(old)
    about = json.loads(str(arrays['about']))
    change(about)
    np.savez(file, **arrays | dict(about=np.array(json.dumps(about))))


def test_one_file_where_an_unknown_camera_was_0_is_not_read(tmp_path):
    "What no camera was known of was found by camera 0."
    file = tmp_path / 'old.npz'
    replace(drawn(0), cameras=[0, 0, 0]).save(file)
    assert Gallery.load(file).search(Gallery.load(file).det_feats[0], camera=0)
    _described(file, lambda about: about.pop('version'))
    with pytest.raises(ValueError, match='old.npz: not a gallery file .it has version 1, this library reads 2: embed the pictures again'): Gallery.load(file)
    small().save(file)
    _described(file, lambda about: about.pop('version'))
    assert Gallery.load(file).cameras is None  # none was written: none can be wrong
    _described(file, lambda about: about.update(version=3))
    with pytest.raises(ValueError, match='it has version 3'): Gallery.load(file)


def test_a_long_number_of_a_camera_is_kept(net, tmp_path):
    "An address, 192.168.1.1 as a number, became an unknown camera without a word."
    address = 3232235777
    data = coco(tmp_path / 'cc', ['a.png', 'bb.png'], {'a.png': address, 'bb.png': address + 1})
    assert build_gallery(net, data, tmp_path / 'g', least=0., progress=False).cameras.tolist() == [address, address + 1]


def test_corrected_cameras_of_a_data_set_are_taken_into_one_file(net, tmp_path, capsys):
    "The file kept the old ones, and a search went by them."
    from person_search_nb.datasets import open_dataset
    from person_search_nb.gallery_files import kept_gallery
    file = tmp_path / 'kept.npz'
    def embedded(cameras):
        data = coco(tmp_path / 'cc', ['a.png', 'bb.png'], cameras)
        return kept_gallery(net, open_dataset(data, 'gallery', progress=False), data, file)
    first, kept = embedded({}), file.read_bytes()
    assert first.cameras.tolist() == [1, 1] and embedded({}).cameras.tolist() == [1, 1] and file.read_bytes() == kept
    assert 'another camera' not in capsys.readouterr().err
    assert embedded({'bb.png': 5}).cameras.tolist() == [1, 5] == Gallery.load(file).cameras.tolist()
    assert 'kept.npz: 1 scenes have another camera now than when they were embedded, first bb.png: the file takes the new' in capsys.readouterr().err
    np.testing.assert_array_equal(Gallery.load(file).det_feats, first.det_feats)


def test_a_scene_that_left_its_data_set_is_said(net, tmp_path):
    "An IndexError, and no page."
    names = ['a.png', 'bb.png']
    g = build_gallery(net, coco(tmp_path / 'cc', names), tmp_path / 'g', least=0., progress=False)
    coco(tmp_path / 'cc', names[:1])
    g = Gallery.open(tmp_path / 'g')
    found = g.search(g.det_feats[0], 99, score_threshold=0, scenes=[1])
    gone = 'its scene bb.png is no longer in the data set; put the old annotation back'
    for use in (lambda: g.picture(1), found[0].thumbnail, lambda: g.dataset().picture(1)):
        with pytest.raises(ValueError, match=gone): use()
    assert gone in hits_page(found) and g.picture(0).shape == (96, 128, 3)
    with pytest.raises(ValueError, match='is no longer in the data set'): open_source(f'coco:{tmp_path}/cc/annotations.json').read('1')


def test_scenes_that_changed_places_are_not_shown_for_one_another(net, tmp_path):
    "Pictures of one size and one time, as an archive unpacks them: every stamp was right."
    names = ['a.bmp', 'b.bmp', 'c.bmp']
    data = coco(tmp_path / 'cc', names)
    for name in names: os.utime(tmp_path / 'cc' / name, (1e9, 1e9))
    build_gallery(net, data, tmp_path / 'g', least=0., progress=False)
    coco(tmp_path / 'cc', names[::-1])
    g = Gallery.open(tmp_path / 'g')
    with pytest.raises(ValueError, match='its scene 0 is c.bmp now, and was a.bmp when it was indexed'): g.picture(0)
    assert (g.picture(1) == np.asarray(Image.open(tmp_path / 'cc/b.bmp'))).all()


def test_a_gallery_that_could_not_be_saved_leaves_nothing(tmp_path):
    "One of its files stayed, and the folder was refused from then on."
    import resource
    g, limits = replace(drawn(0), names=[k * 100_000 for k in 'abc']), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        with pytest.raises(OSError, match='000001.npz: cannot be written'): g.save(tmp_path / 'g')  # the rows are there already
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [p.name for p in (tmp_path / 'g').iterdir() if not p.name.startswith('.')]
    g.save(tmp_path / 'g')
    assert len(Gallery.open(tmp_path / 'g')) == len(g)
    with pytest.raises(ValueError, match='there is a gallery already'): g.save(tmp_path / 'g')


def test_a_gallery_whose_manifest_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    "Its shard stayed without a manifest that names it, and the folder was refused from then on."
    def full(*args): raise OSError('no room')
    with monkeypatch.context() as m, pytest.raises(OSError, match='no room'):
        m.setattr('person_search_nb.shards.write_manifest', full)
        small().save(tmp_path / 'g')
    assert not [p.name for p in (tmp_path / 'g').iterdir() if not p.name.startswith('.')]
    small().save(tmp_path / 'g')
    assert len(Gallery.open(tmp_path / 'g')) == 2


def test_a_killed_save_is_done_again(tmp_path):
    write_manifest((tmp_path / 'g').mkdir() or tmp_path / 'g', new_manifest('0123456789abcdef', dim=4))
    for name in ('manifest.json.12.part', '000001.rows.npy', '000001.npz.12.part'): (tmp_path / 'g' / name).write_bytes(b'half')
    small().save(tmp_path / 'g')
    assert len(Gallery.open(tmp_path / 'g')) == 2 and not list((tmp_path / 'g').glob('*.part'))


def test_shards_that_no_manifest_names_are_removed(net, tmp_path, pictures):
    "A process that is killed between the new manifest and the removal of old shards left these for good."
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    kept = {p.name for p in (tmp_path / 'g').iterdir()}
    write_manifest(tmp_path / 'g', read_manifest(tmp_path / 'g') | {'next': 9})
    for name in ('000009.npz', '000009.rows.npy', '000008.hnsw', '000007.ivf-pq'): (tmp_path / 'g' / name).write_bytes(b'old')
    others = {'notes.npz', '000123.npz'}  # a number that the gallery has not come to
    for name in others: (tmp_path / 'g' / name).write_bytes(b'mine')
    build_gallery(net, pictures, tmp_path / 'g', least=0., progress=False)
    assert {p.name for p in (tmp_path / 'g').iterdir()} == kept | others


@pytest.mark.parametrize('kind', ['film', 'picture'])
def test_a_single_file_of_another_name_is_said(net, tmp_path, pictures, capsys, kind):
    "Its people were found twice; a film's scenes bear the film's name."
    old, new = (tmp_path / name for name in (('aa.ts', 'bb.ts') if kind == 'film' else ('one.png', 'two.png')))
    film(old, (128, 96)) if kind == 'film' else shutil.copy(pictures / 'c1_a.png', old)
    g = build_gallery(net, old, tmp_path / 'g', least=0., progress=False)
    old.rename(new)
    capsys.readouterr()
    build_gallery(net, new, tmp_path / 'g', least=0., progress=False)
    assert f'{old} is gone, and {len(g.names)} of its scenes have the size and time of files in {new}, first {g.names[0]}; if it was moved there, its people are found twice' in capsys.readouterr().out


def test_a_camera_that_is_not_taken_is_said(net, tmp_path, capsys):
    "Only the other name was."
    index = lambda name, camera: build_gallery(net, coco(tmp_path / 'cc', [name], {name: camera}), tmp_path / 'g', least=0., progress=False)
    index('a.png', 1)
    (tmp_path / 'cc/a.png').rename(tmp_path / 'cc/b.png')
    assert index('b.png', 1).cameras.tolist() == [1] and 'another camera' not in capsys.readouterr().out
    assert index('b.png', 2).cameras.tolist() == [1]
    assert 'g: 1 scenes of another name have another camera, too, first b.png (camera 2, before camera 1): the gallery keeps the old' in capsys.readouterr().out


@pytest.mark.parametrize('wrong, asked', [(dict(cameras=['0', '1', '2']), 'camera'), (dict(cameras=[None, 1, 2]), 'camera'), (dict(cameras=[0, float('nan'), 1]), 'camera'), (dict(cameras=[0, .5, 1]), 'camera'),
                                          (dict(cameras=[[0], [1, 2], [3]]), 'camera'), (dict(times=['1', '2', '3']), 'time'), (dict(times=[None, 1, 2]), 'time')])
def test_cameras_and_times_in_memory_are_numbers(wrong, asked):
    "numpy's own errors, of a comparison or a conversion, which name neither the gallery nor the column."
    g = replace(drawn(0), **wrong)
    said = f'this gallery: its {asked}s are (not|not all whole) numbers; give a number for each scene, (-1|NaN) where it is not known'
    with pytest.raises(ValueError, match=said): g.search(g.det_feats[0], **{asked: 0 if asked == 'camera' else (0, None)})
    found = g.search(g.det_feats[0], 99, score_threshold=0)
    with pytest.raises(ValueError, match=said): [getattr(m, asked) for m in found]


def test_a_scene_below_0_is_no_scene():
    "The person was found in the last one."
    g = drawn(0)
    g = replace(g, det_image=np.array([*g.det_image[:-1], -1]))
    with pytest.raises(ValueError, match=f'this gallery: row {len(g) - 1}: det_image is no scene; they are numbered from 0'): g.search(g.det_feats[0])
