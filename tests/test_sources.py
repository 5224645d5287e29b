"Sources of scenes: what is a film, what is a picture, and which of a folder's files are scenes."
import os
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from person_search_nb.files import DataError
from person_search_nb.sources import open_source, time_in


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has no pipes')
def test_a_pipe_is_no_film(tmp_path):
    "It was opened, and waited for someone to write into it."
    pytest.importorskip('av')
    os.mkfifo(tmp_path/'f.mp4')
    for read in (lambda s: s.scan(), lambda s: s.read('0')):
        with pytest.raises(DataError, match='f.mp4: is a pipe, not a file'): read(open_source(tmp_path/'f.mp4'))


def film(path, numbers=range(20), rate=5, size=(96, 128), **kw):
    "A film whose frames have these numbers at `rate` a second; each frame is lighter than the one before."
    av = pytest.importorskip('av')
    with av.open(str(path), 'w', **kw) as out:
        stream = out.add_stream('mpeg4', rate=rate)
        (stream.height, stream.width), stream.pix_fmt = size, 'yuv420p'
        for k, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 5 * k % 256, np.uint8), format='rgb24')
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_only_films_go_to_ffmpeg(tmp_path):
    "A text was drawn as a film of one scene, and a list opened the films it names."
    film(tmp_path/'a.mp4')
    texts = {'list.txt': 'hello\n' * 300, 'd.ffconcat': "ffconcat version 1.0\nfile 'a.mp4'\n"}
    for name, text in texts.items():
        (tmp_path/name).write_text(text)
        with pytest.raises(DataError, match=f'{name}: is neither a picture nor a film by its ending'): open_source(tmp_path/name)
        (tmp_path/'named.mp4').write_text(text)  # the ending alone opens no list either
        with pytest.raises(DataError, match='named.mp4: cannot be opened as a film'): open_source(tmp_path/'named.mp4').scan()
    assert len(open_source(tmp_path/'a.mp4').scan()) == 4


@pytest.mark.parametrize('ending', ['mkv', 'avi', 'mov', 'ts', 'mpg', '3gp'])
def test_films_of_other_containers_are_read(tmp_path, ending):
    source = open_source(film(tmp_path/f'a.{ending}', rate=25, numbers=range(50)))
    assert [source.read(i.key).shape for i in source.scan()] == [(96, 128, 3)] * 2


def test_one_picture_is_read_as_a_picture(tmp_path, monkeypatch):
    (tmp_path/'cam1').mkdir()
    Image.new('RGB', (64, 48), (90, 20, 30)).save(tmp_path/'cam1/c3s1_000025.png')
    Image.new('RGB', (64, 48)).save(tmp_path/'cam1/c4_b.png')
    source = open_source(tmp_path/'cam1/c3s1_000025.png')
    item, = source.scan()
    again = open_source(source.about)
    assert (item.name, item.camera) == ('c3s1_000025.png', 3) and again.scan() == [item]
    assert again.read(item.key, item.stamp)[0, 0].tolist() == [90, 20, 30]
    with pytest.raises(DataError): source.read('c4_b.png')  # its neighbours are none of its business
    os.utime(tmp_path/'cam1/c3s1_000025.png', (0, 0))
    with pytest.raises(DataError, match='has changed since'): source.read(item.key, item.stamp)
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '1000')
    with pytest.raises(DataError, match='c3s1_000025.png: is too large, 64 x 48 px'): source.read(item.key)
    (tmp_path/'cam1/c3s1_000025.png').unlink()
    with pytest.raises(DataError, match='c3s1_000025.png: no such picture'): open_source(source.about).read(item.key)


def test_frames_have_the_limit_of_pictures(tmp_path, monkeypatch):
    source = open_source(film(tmp_path/'a.mp4'))
    key = source.scan()[0].key
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '10000')
    for read in (lambda: source.read(key), open_source(tmp_path/'a.mp4').scan):
        with pytest.raises(DataError, match='a.mp4: has frames of 128 x 96 px, the limit is 0.01 million'): read()
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '12288')
    assert source.read(key).shape == (96, 128, 3)


def test_a_gap_in_a_film_is_no_debt(tmp_path):
    "After a gap, as recorders that wait for movement leave it, every frame was taken until the count had caught up."
    gap = film(tmp_path/'gap.mkv', [*range(50), *range(1500, 1600)], rate=25)
    times = lambda every: [i.time for i in open_source(gap, every).scan()]
    assert times(1) == [0, 1, 60, 61, 62, 63]
    assert times(.1)[20:22] == [60, pytest.approx(60.12)] and len(times(.1)) == 60
    assert times(7) == [0, 60, 63]


@pytest.fixture
def linked(tmp_path):
    "A folder of links to pictures that lie elsewhere, as DVC and git-annex make it; one of them leads nowhere."
    store, folder = tmp_path/'store', tmp_path/'linked'
    for path in (store, folder): path.mkdir()
    for k in range(3):
        Image.new('RGB', (64, 48), (k, k, k)).save(store/f'{k}.png')
        try: (folder/f'{k}.png').symlink_to(store/f'{k}.png')
        except OSError: pytest.skip('links need a privilege here')
    (folder/'gone.png').symlink_to(store/'gone.png'); (folder/'self.png').symlink_to(folder/'self.png')
    return folder


def test_linked_pictures_have_the_rule_of_data_sets(linked, monkeypatch, capsys):
    "They were refused, whatever PERSON_SEARCH_LINKS said."
    items = open_source(linked).scan()
    assert [i.name for i in items] == ['0.png', '1.png', '2.png'] and '2 link(s) that lead nowhere' in capsys.readouterr().out
    with pytest.raises(DataError, match='set PERSON_SEARCH_LINKS=follow'): open_source(linked).read('1.png')
    monkeypatch.setenv('PERSON_SEARCH_LINKS', 'follow')
    assert [open_source(linked).read(i.key, i.stamp)[0, 0, 0] for i in items] == [0, 1, 2]
    with pytest.raises(DataError): open_source(linked).read('../store/1.png')
    assert open_source(linked/'2.png').scan()[0].name == '2.png' and (open_source(linked/'2.png').read('2.png') == 2).all()


def test_linked_folders(linked, tmp_path, monkeypatch, capsys):
    (tmp_path/'all').mkdir()
    (tmp_path/'all/cam1').symlink_to(tmp_path/'store'); (tmp_path/'store/back').symlink_to(tmp_path/'all')
    with pytest.raises(DataError, match='holds no pictures .* but 1 linked folder.s. .set PERSON_SEARCH_LINKS=follow'): open_source(tmp_path/'all').scan()
    monkeypatch.setenv('PERSON_SEARCH_LINKS', 'follow')
    items = open_source(tmp_path/'all').scan()
    assert [i.name for i in items] == [f'cam1/{k}.png' for k in range(3)] and open_source(tmp_path/'all').read('cam1/2.png').shape == (48, 64, 3)


def test_folders_of_thumbnails_and_copies_are_no_scenes(tmp_path, capsys):
    folder = tmp_path/'.home/pics'  # that the folder itself lies in a hidden one does not matter
    for name in ('a.jpg', '.ipynb_checkpoints/a.jpg', '.hidden/b.jpg', '@eaDir/a.jpg/THUMB.jpg', '__MACOSX/._a.jpg', 'cam1/@eaDir/c.jpg', 'cam1/c.jpg'):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (64, 48)).save(folder/name)
    assert [i.name for i in open_source(folder).scan()] == ['a.jpg', 'cam1/c.jpg']
    assert '2 pictures; left out: 2 @eaDir/, 1 .' in capsys.readouterr().out


@pytest.mark.parametrize('every', ['often', None, float('nan'), 0, -1])
def test_the_time_between_frames_is_a_number(tmp_path, every):
    with pytest.raises(DataError, match=f'every={every}: give the seconds'): open_source(film(tmp_path/'a.mp4'), every)


def test_the_time_between_frames_is_written_as_a_number(tmp_path):
    assert type(open_source(film(tmp_path/'a.mp4'), np.float32(.5)).about['every']) is float


NOON = datetime(2024, 5, 1, 12, 30, tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize('name, after', [
    ('2024-05-01T12-30-00.jpg', 0), ('2024-05-01T12-30-00Z.jpg', 0), ('2024-05-01T14-30-00+0200.jpg', 0), ('2024-05-01T14:30:00+02:00.jpg', 0), ('20240501T143000+02.jpg', 0),
    ('2024-05-01T07-30-00-0500.jpg', 0), ('2024-05-01T18-00-00.250+0530.jpg', .25), ('IMG_20240501_123000123.jpg', .123), ('2024-05-01 12.30.00.123.jpg', .123),
    ('20240501123000123456.jpg', .123456), ('2024-05-01_12-30-00-0100.jpg', 0), ('2024-05-01_12-30-00_001.jpg', 0), ('2024-05-01T12-30-00-0001.jpg', 0), ('2024-05-01T12-30-00+9900.jpg', 0)])
def test_zones_and_milliseconds_of_names(name, after):
    "A zone was dropped, and a time with milliseconds was none."
    assert time_in(name) == pytest.approx(NOON + after, abs=1e-6)


@pytest.mark.parametrize('name', ['20240501123000123456789.jpg', '2024050112300012.jpg', '20249901123000.jpg', 's12345.jpg'])
def test_numbers_that_are_no_times(name): assert np.isnan(time_in(name))


def test_a_film_begins_when_its_name_says(tmp_path):
    "Its people were all seen in the seconds after its beginning, whenever that was."
    items = open_source(film(tmp_path/'cam1_2024-05-01_12-30-00.mkv')).scan()
    assert [i.time - NOON for i in items] == [0, 1, 2, 3] and items[1].name == 'cam1_2024-05-01_12-30-00.mkv 1.00 s'
    assert [i.time for i in open_source(film(tmp_path/'c1s1_000100.mkv')).scan()] == [0, 1, 2, 3]


@pytest.mark.skipif(os.name != 'posix', reason='Windows has no such names')
def test_a_picture_with_a_colon_in_its_path_is_a_picture(tmp_path):
    "It was taken for a data spec."
    (tmp_path/'12:30').mkdir()
    for path in (tmp_path/'2024-05-01T12:30:00.png', tmp_path/'12:30/a.png'):
        Image.new('RGB', (64, 48)).save(path)
        assert [i.name for i in open_source(str(path)).scan()] == [path.name] and open_source(path).read(path.name).shape == (48, 64, 3)
