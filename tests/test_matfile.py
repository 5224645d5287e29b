"MATLAB files, damaged or not, and what is kept of them."
import io, os, struct as struct_, tempfile, tracemalloc
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from person_search_nb.files import DataError
from person_search_nb.matfile import cached, MatFile

scipy_io = pytest.importorskip('scipy.io')


def struct(names, rows):
    out = np.empty((1, len(rows)), [(n, object) for n in names])
    for k, row in enumerate(rows): out[0, k] = tuple(row)
    return out

def cell(items):
    out = np.empty((len(items), 1), object)
    for k, item in enumerate(items): out[k, 0] = item
    return out

def save(file, pack=True, **variables):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(file, variables, do_compression=pack)


# -- MATLAB files -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('type_', ['u1', 'i1', 'i2', 'u2', 'i4', 'u4', 'f4', 'f8', 'i8'])
@pytest.mark.parametrize('shape', [(0, 0), (1, 0), (1, 1), (1, 4), (3, 5), (40, 5)])
def test_numbers(tmp_path, type_, shape, pack):
    x = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(type_)
    save(tmp_path/'x.mat', pack, other=np.eye(3), x=x)
    got = MatFile(tmp_path/'x.mat').numbers('absent', 'x')
    assert got.shape == shape and got.dtype == np.float64 and (got == x).all()


BOXES = [np.array([[30000, 20000, 5000, 32000]], np.int16), np.zeros((1, 0)), np.zeros((0, 0)), np.zeros((0, 4)), np.array([[1.5, 2, 3, 4]]), np.array([[7, 8, 9, 200]], np.uint8), np.array([[1, 2, 3]], np.int32)]

@settings(max_examples=30)
@given(st.lists(st.lists(st.tuples(st.text('abc_.é7', max_size=12), st.integers(0, len(BOXES) - 1)), max_size=5), min_size=1, max_size=6), st.booleans(), st.integers(0, 2000))
def test_records_equal_what_was_written(lists, pack, piece):
    "Lists of records of any length, in pieces of any size, against the plain structures they were made of."
    file = io.BytesIO()
    scipy_io.savemat(file, dict(L=struct(['who', 'rows'], [(f'p{k}', struct(['at', 'box'], [(t, BOXES[b]) for t, b in some])) for k, some in enumerate(lists)])), do_compression=pack)
    got = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'x.mat').write_bytes(file.getvalue())
        mat = MatFile(Path(folder, 'x.mat'))
    mat.piece = piece
    for who, rows in mat.records('L', fields=('who', 'rows')):
        at, box, n = rows.fields('at', 'box')
        values, size = box.numbers()
        ends = np.cumsum(size)
        cells = [(t, values[e - s:e].tolist()) for t, s, e in zip(at.text().tolist(), size, ends)]
        for k, m in zip(who.text().tolist(), n): got.append((k, cells[:m])); cells = cells[m:]
    assert got == [(f'p{k}', [(t, BOXES[b].ravel().tolist()) for t, b in some]) for k, some in enumerate(lists)]


def test_mat_errors(tmp_path):
    save(tmp_path/'a.mat', x=np.eye(2), s=struct(['q'], [(1,)]), c=cell(['a', 5]))
    a = MatFile(tmp_path/'a.mat')
    for call, message in ((lambda: a.numbers('y'), 'a.mat: holds x, s, c and not y'), (lambda: a.numbers('s'), 's is no matrix of numbers'), (lambda: list(a.cells('x')), 'x is no cell array'),
                          (lambda: list(a.records('c', fields=('q',))), 'c is no struct array'), (lambda: list(a.records('s', fields=('z',))), 'no field z, only q'),
                          (lambda: [m.text() for m in a.cells('c')], 'text is asked for'), (lambda: [m.numbers() for m in a.cells('c')], 'numbers are asked for')):
        with pytest.raises(DataError, match=message): call()
    with pytest.raises(DataError, match='gone.mat: no such file'): MatFile(tmp_path/'gone.mat')
    for data, message in ((b'', 'no MATLAB 5 file'), (b'MATLAB 7.3 MAT-file' + bytes(200), '7.3 format.*-v7'), (b'\x89HDF\r\n' + bytes(200), 'HDF5'), (Path(tmp_path/'a.mat').read_bytes()[:-9], 'ends too early')):
        (tmp_path/'b.mat').write_bytes(data)
        with pytest.raises(DataError, match='b.mat: .*' + message): MatFile(tmp_path/'b.mat')


def bomb(file, kind, count, value, times):
    "A packed variable `x` of `count` numbers or values, made of `value` many times over."
    import zlib
    element = lambda kind, data: struct_.pack('<II', kind, len(data)) + data + bytes(-len(data) % 8)
    pack, size = zlib.compressobj(9), len(value) * times
    head = element(6, struct_.pack('<II', kind, 0)) + element(5, struct_.pack('<ii', 1, count)) + element(1, b'x')
    body = pack.compress(struct_.pack('<II', 14, 48 + size) + head + (struct_.pack('<II', 2, size) if kind == 9 else b''))
    body += b''.join(pack.compress(value) for _ in range(times)) + pack.flush()
    file.write_bytes(b'MATLAB 5.0 MAT-file'.ljust(124) + b'\0\1IM' + struct_.pack('<II', 15, len(body)) + body)
    return file


@pytest.mark.parametrize('kind,count,value,message', [
    (9, 1 << 28, bytes(1 << 20), "x has 268,435,456 numbers"), (9, 1 << 20, bytes(1 << 20), 'unpack to more than 64 MB'),
    (1, 1 << 25, struct_.pack('<II', 14, 0) * (1 << 17), 'a list of 33,554,432 values'), (1, 4, struct_.pack('<II', 14, (1 << 26) - 8) + bytes((1 << 26) - 8), 'a value of 64 MB'),
    (1, 1 << 8, struct_.pack('<II', 14, (1 << 20) - 8) + bytes((1 << 20) - 8), 'unpack to more than 64 MB|a value has no flags'),
])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, kind, count, value, message):
    "A quarter of a megabyte that unpacks to a quarter of a gigabyte."
    mat = MatFile(bomb(tmp_path/'x.mat', kind, count, value, (1 << 28) // len(value)))
    assert (tmp_path/'x.mat').stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f'x.mat: .*({message})'): mat.numbers('x') if kind == 9 else [None for _ in mat.cells('x')]
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally: tracemalloc.stop()


def test_a_file_that_is_no_file(tmp_path):
    "A pipe would wait for ever; a file with 60 GB of nothing in it would fill the memory."
    os.mkfifo(tmp_path/'pipe.mat')
    with pytest.raises(DataError, match='pipe.mat: is a pipe'): MatFile(tmp_path/'pipe.mat')
    with open(tmp_path/'hole.mat', 'wb') as f: f.truncate(60 << 30)
    with pytest.raises(DataError, match='hole.mat: has 60.0 GB'): MatFile(tmp_path/'hole.mat')


# -- the cache --------------------------------------------------------------------------------------------------------

def test_cache_is_used_renewed_and_never_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'home'))
    file, calls = tmp_path/'data'/'a.mat', []
    file.parent.mkdir()
    file.write_bytes(b'one')
    def build(file): calls.append(file.read_bytes()); return dict(x=np.frombuffer(calls[-1], np.uint8), names=np.array(['ä', 'b']))
    first, again = cached(build, file), cached(build, file)
    assert calls == [b'one'] and (first['x'] == again['x']).all() and again['names'].tolist() == ['ä', 'b'] and set(again) == {'x', 'names'}
    assert [p.name for p in file.parent.iterdir()] == ['a.mat'], 'nothing is written beside the data'
    kept, = (tmp_path/'home'/'person_search_nb').iterdir()
    whole = kept.read_bytes()
    for damage in (b'', whole[:50], whole[:-10], whole[:300] + bytes([whole[300] ^ 255]) + whole[301:], b'x' * 100):
        kept.write_bytes(damage)
        assert bytes(cached(build, file)['x']) == b'one' and kept.read_bytes() == whole
    assert len(calls) == 6
    file.write_bytes(b'other')
    assert bytes(cached(build, file)['x']) == b'other'
    monkeypatch.setenv('XDG_CACHE_HOME', str(file))  # nowhere to write
    assert bytes(cached(build, file)['x']) == b'other' and len(calls) == 8
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(Path, 'home', lambda: (_ for _ in ()).throw(RuntimeError('Could not determine home directory.')))  # a container's user without an entry
    assert bytes(cached(build, file)['x']) == b'other' and len(calls) == 9


def test_arrays_that_came_with_the_data_are_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'home'))
    file = tmp_path/'Images.mat'
    file.write_bytes(b'genuine')
    stat = file.stat()
    for form in (1, 2): np.savez(tmp_path/'.Images.mat.npz', key=np.array([form, stat.st_size, stat.st_mtime_ns]), x=np.zeros(3))
    (tmp_path/'.Images.mat.npz').chmod(0o644)
    assert bytes(cached(lambda f: dict(x=np.frombuffer(f.read_bytes(), np.uint8)), file)['x']) == b'genuine'
