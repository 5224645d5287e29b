"""Data of strangers and of other tools: nothing outside is read, nothing is started, nothing is read wrongly without a word."""
import io, json, os, re, struct, warnings, zlib
from pathlib import Path

import numpy as np, pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageOps

from person_search_nb.annotation_checks import cut_boxes
from person_search_nb.coco_files import find_coco
from person_search_nb.files import DataError
from person_search_nb.safe_reading import user_path
from person_search_nb.mot_files import read_film
from person_search_nb.pictures import check_picture, read_picture, resize_picture
from person_search_nb.scenes import check_scene, read_query_list, Scene, SceneDataset
from person_search_nb.specs import make_spec, SPLITS
from person_search_nb.streets import synth_config
from person_search_nb.coco import camera_in, camera_told
from person_search_nb.layouts import recognize
from person_search_nb.datasets import format_summary, in_common, in_common_warning, must_split
from person_search_nb.datasets import open_dataset, open_protocol, parse_spec, summary
from test_datasets import write


def picture(path, size=(60, 100), value=90, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, **kw)
    return path

def opened(spec, split='gallery'): return open_dataset(spec, split, progress=False)

def refused(spec, message, split='gallery'):
    with pytest.raises(DataError, match=message) as e: opened(spec, split)
    assert '\n' not in str(e.value)
    return str(e.value)


# -- nothing outside is touched ---------------------------------------------------------------------------------------

@pytest.fixture
def secret(tmp_path):
    "A picture beside the data set."
    return picture(tmp_path/'secret'/'private.jpg', value=200)

NAMES = ['../../secret/private.jpg', '../secret/private.jpg', 'frames/../../secret/private.jpg', '..\\secret\\private.jpg', 'C:\\private.jpg', '/etc/passwd', '', '  ', 'a\0b.jpg', '\\\\server\\share\\a.jpg']

@pytest.mark.parametrize('name', NAMES)
def test_coco_names_stay_in_the_data_set(tmp_path, secret, name):
    refused(write(tmp_path/'data', lambda d: d['images'][1].update(file_name=name)), r'annotations.json: images\[1\]')

@pytest.mark.skipif(os.name != 'posix', reason='Windows has no such names')
@pytest.mark.parametrize('name', ['C:1.jpg', 'cam1\\x.jpg', 'C:\\private.jpg'])
def test_coco_names_are_tried_as_written(tmp_path, name):
    "On Linux a colon and a backslash are letters like others."
    spec = write(tmp_path/'data', lambda d: d['images'][1].update(file_name=name))
    picture(tmp_path/'data'/'frames'/'cam1'/'x.jpg', value=200)
    picture(tmp_path/'data'/'frames'/name, value=50)
    data = opened(spec)
    assert data.names[1] == name and abs(int(data.picture(1)[0, 0, 0]) - 50) < 3

@pytest.mark.parametrize('name', ['x' * 5000 + '.jpg', 'y/' * 2500 + '1.jpg'])
def test_coco_names_that_are_too_long(tmp_path, name):
    assert len(refused(write(tmp_path/'data', lambda d: d['images'][1].update(file_name=name)), r'annotations.json: images\[1\].*cannot be followed \(File name too long\)')) < 500

def test_coco_absolute_name(tmp_path, secret):
    for missing in ('', '?missing=skip'): refused(write(tmp_path/'data', lambda d: d['images'][1].update(file_name=str(secret))) + missing, 'absolute path; write it relative')

@pytest.mark.parametrize('what', ['file', 'folder'])
def test_links_out_of_the_data_set_are_followed_only_when_asked(tmp_path, secret, what, monkeypatch):
    spec = write(tmp_path/'data', lambda d: d['images'][1].update(file_name='private.jpg'))
    if what == 'file': (tmp_path/'data'/'frames'/'private.jpg').symlink_to(secret)
    else:
        for f in (tmp_path/'data'/'frames').iterdir(): f.rename(secret.parent/f.name)
        (tmp_path/'data'/'frames').rmdir()
        (tmp_path/'data'/'frames').symlink_to(secret.parent)
    refused(spec, r'is a link that leads out of .*PERSON_SEARCH_LINKS=follow if the link is yours')
    monkeypatch.setenv('PERSON_SEARCH_LINKS', 'follow')
    assert opened(spec).picture(1).mean() > 190
    refused(write(tmp_path/'other', lambda d: d['images'][1].update(file_name='../secret/private.jpg')), "write a path without '..'")

def test_links_within_the_data_set_are_fine(tmp_path):
    spec = write(tmp_path, lambda d: d['images'][1].update(file_name='other.jpg'))
    (tmp_path/'frames'/'other.jpg').symlink_to(tmp_path/'frames'/'c1_1.jpg')
    assert opened(spec).names[1] == 'other.jpg'

@given(name=st.text(st.sampled_from('./\\~a:\0 C'), max_size=12))
def test_any_name_ends_inside_or_in_one_error(name, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()/'names'
    if not folder.exists(): write(folder)
    data = json.loads((folder/'annotations.json').read_text())
    data['images'][1]['file_name'] = name
    (folder/'b.json').write_text(json.dumps(data))
    with pytest.raises(DataError) as e: opened(f'coco:{folder}/b.json')
    assert str(folder) in str(e.value)

scipy = pytest.importorskip('scipy.io')
from test_layouts import write_cuhk, write_duke, write_mot, write_prw
from test_matfile import cell, save

@pytest.mark.parametrize('name', ['../../secret/private', '../secret/private', '/etc/passwd', '..\\..\\secret\\private'])
def test_prw_frame_lists_name_only_frames(tmp_path, secret, name):
    "Neither the picture nor the annotation of a frame lies elsewhere."
    spec = write_prw(tmp_path/'data')
    save(tmp_path/'secret'/'private.jpg.mat', box_new=np.zeros((0, 5)))
    save(tmp_path/'data'/'frame_test.mat', img_index_test=cell(['c1s1_000001', name]))
    refused(spec, r"frame_test.mat: .*without '\.\.'|annotations/?/etc/passwd.jpg.mat: no such file")

def test_prw_links(tmp_path, secret):
    spec = write_prw(tmp_path/'data')
    for file, source in ((tmp_path/'data/frames/c2s1_000001.jpg', secret), (tmp_path/'data/annotations/c2s1_000001.jpg.mat', tmp_path/'secret/x.mat')):
        kept = file.read_bytes()
        source.write_bytes(kept)
        file.unlink()
        file.symlink_to(source)
        refused(spec, 'is a link that leads out')
        file.unlink()
        file.write_bytes(kept)
    opened(spec)

@pytest.mark.parametrize('name', ['../../../secret/private.jpg', '..\\..\\..\\secret\\private.jpg'])
def test_cuhk_names(tmp_path, secret, name):
    boxes = {'t.jpg': [[1, 1, 20, 40]], 'u.jpg': [[2, 1, 20, 40], [40, 5, 20, 40]], 'a.jpg': [[5, 5, 20, 40], [30, 5, 20, 40]], 'b.jpg': [[9, 5, 20, 40], [9, 50, 20, 40]], 'c.jpg': [], name: []}
    refused(write_cuhk(tmp_path/'data', images=boxes, pool=('a.jpg', 'b.jpg', 'c.jpg', name)), "Images.mat: .*without '..'")

@pytest.mark.parametrize('change', [('imDir=img1', 'imDir=../../secret'), ('imDir=img1', 'imDir=..\\..\\secret'), ('imExt=.png', 'imExt=/../../../secret/private.jpg'), ('imDir=img1', 'imDir=/etc'), ('imDir=img1', 'imDir=link')])
def test_mot_folders(tmp_path, secret, change):
    spec = write_mot(tmp_path/'data', films=('A-01',))
    ini = tmp_path/'data'/'A-01'/'seqinfo.ini'
    ini.write_text(ini.read_text().replace(*change))
    (tmp_path/'data'/'A-01'/'link').symlink_to(secret.parent)
    refused(spec, "seqinfo.ini: .*(without '..'|absolute|leads out)", 'train')

def test_mot_and_duke_links(tmp_path, secret):
    spec = write_mot(tmp_path/'mot', films=('A-01',))
    (tmp_path/'mot/A-01/img1/000011.png').unlink()
    (tmp_path/'mot/A-01/img1/000011.png').symlink_to(secret)
    refused(spec, 'seqinfo.ini: .* is a link that leads out', 'train')
    spec = write_duke(tmp_path/'duke')
    (tmp_path/'duke/frames/camera1/00120.jpg').unlink()
    (tmp_path/'duke/frames/camera1/00120.jpg').symlink_to(secret)
    refused(spec, 'is a link that leads out', 'train')


# -- nothing is run ---------------------------------------------------------------------------------------------------

def test_postscript_starts_nothing(tmp_path, monkeypatch):
    "Pillow would hand it to ghostscript, whatever the file is called."
    (tmp_path/'bin').mkdir()
    gs = tmp_path/'bin'/'gs'
    gs.write_text(f'#!/bin/sh\necho started >> {tmp_path}/log\nexit 1\n')
    gs.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin{os.pathsep}{os.environ["PATH"]}')
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 60\n%%EndComments\nshowpage\n%%EOF\n'
    for name in ('c1_1.jpg', 'x.eps', 'x.png'):
        (tmp_path/name).write_bytes(eps)
        for read in (read_picture, check_picture):
            with pytest.raises(DataError, match=rf'{name}: cannot be decoded \(it is none of JPEG'): read(tmp_path/name)
    with pytest.raises(DataError, match='upload.jpg: cannot be decoded'): read_picture(io.BytesIO(eps), 'upload.jpg')
    spec = write(tmp_path/'data')
    (tmp_path/'data'/'frames'/'c1_1.jpg').write_bytes(eps)
    refused(spec, 'c1_1.jpg: cannot be decoded')
    assert not (tmp_path/'log').exists()


# -- nothing waits for ever, nothing fills the memory -----------------------------------------------------------------

def test_pipes_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for read in (read_picture, check_picture, read_query_list, lambda p: opened(f'coco:{p}')):
        with pytest.raises(DataError, match='pipe: is a pipe, not a file'): read(tmp_path/'pipe')
    (tmp_path/'folder.jpg').mkdir()
    with pytest.raises(DataError, match='folder.jpg: is a folder, not a file'): read_picture(tmp_path/'folder.jpg')
    with pytest.raises(DataError, match='is a device'): read_picture('/dev/zero')
    spec = write(tmp_path/'data')
    (tmp_path/'data'/'frames'/'c1_1.jpg').unlink()
    os.mkfifo(tmp_path/'data'/'frames'/'c1_1.jpg')
    refused(spec, 'c1_1.jpg: is a pipe')
    refused(spec + '?missing=skip', 'c1_1.jpg: is a pipe')
    mot = write_mot(tmp_path/'mot', films=('A-01',))
    for file in ('gt/gt.txt', 'seqinfo.ini'):
        kept = (tmp_path/'mot/A-01'/file).read_bytes()
        (tmp_path/'mot/A-01'/file).unlink()
        os.mkfifo(tmp_path/'mot/A-01'/file)
        refused(mot, 'is a pipe', 'train')
        (tmp_path/'mot/A-01'/file).unlink()
        (tmp_path/'mot/A-01'/file).write_bytes(kept)

def test_pictures_have_a_limit_of_pixels(tmp_path, monkeypatch):
    "13,000 x 13,000 px in 20 KB; the limit can be raised, above Pillow's own and back."
    Image.new('1', (13_000, 13_000)).save(tmp_path/'big.png')
    assert (tmp_path/'big.png').stat().st_size < 30_000
    own = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for read in (read_picture, check_picture):
            with pytest.raises(DataError, match='big.png: is too large, 13000 x 13000 px, the limit is 100 million pixels; .*PERSON_SEARCH_PIXELS=169000000'): read(tmp_path/'big.png')
        monkeypatch.setenv('PERSON_SEARCH_PIXELS', '200e6')
        assert check_picture(tmp_path/'big.png') == (13_000, 13_000)
    assert Image.MAX_IMAGE_PIXELS == own
    monkeypatch.setenv('PERSON_SEARCH_PIXELS', '1000')
    with pytest.raises(DataError, match='too large'): read_picture(picture(tmp_path/'a.png', (40, 30)))
    for wrong in ('many', '-3', 'nan', '0', '1e99'):
        monkeypatch.setenv('PERSON_SEARCH_PIXELS', wrong)
        with pytest.raises(DataError, match=f'PERSON_SEARCH_PIXELS={wrong}: write how many pixels'): read_picture(tmp_path/'a.png')

def test_deep_json(tmp_path):
    for text in ('[' * 10 ** 5, '{"images":' * 10 ** 5, '{"images": [], "annotations": ' + '[' * 10 ** 5 + ']' * 10 ** 5 + '}'):
        (tmp_path/'annotations.json').write_text(text)
        refused(f'coco:{tmp_path}', 'annotations.json: is (nested too deeply|not JSON)')
        with pytest.raises(DataError, match='annotations.json: is (nested too deeply|not JSON|no list)'): read_query_list(tmp_path/'annotations.json')

def test_decoders_that_fail_in_their_own_way(tmp_path, monkeypatch):
    "Whatever a decoder raises, the message names the file."
    from PIL import ImageFile
    path = picture(tmp_path/'a.png')
    for error in (KeyError('x'), zlib.error('bad'), struct.error('short'), IndexError(), RuntimeError('no'), EOFError(), OverflowError('big'), AttributeError('a')):
        def load(self): raise error
        with monkeypatch.context() as m:
            m.setattr(ImageFile.ImageFile, 'load', load)
            with pytest.raises(DataError, match='a.png: cannot be decoded'): read_picture(path)
    def load(self): raise MemoryError
    monkeypatch.setattr(ImageFile.ImageFile, 'load', load)
    with pytest.raises(DataError, match='a.png: does not fit into memory'): read_picture(path)


# -- pictures as they are meant ---------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_pictures_come_upright(tmp_path, kind, turn):
    "As Pillow turns them, looked at and decoded alike, from a file and from bytes."
    exif, path = Image.Exif(), tmp_path/f'a.{kind.lower()}'
    exif[0x0112] = turn
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)).resize((80, 48)).save(path, kind, exif=exif, **dict(lossless=True) if kind == 'WEBP' else {})
    with Image.open(path) as im: want = np.asarray(ImageOps.exif_transpose(im))
    got = read_picture(path)
    assert got.shape == ((48, 80, 3) if turn < 5 else (80, 48, 3)) and got.flags['C_CONTIGUOUS'] and check_picture(path) == got.shape[:2]
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(read_picture(io.BytesIO(path.read_bytes()), 'upload'), want)

def test_a_turned_picture_of_a_data_set(tmp_path):
    "Its size and its boxes are those of the upright picture; an annotation of the pixels as they lie is refused, by name."
    exif = Image.Exif()
    exif[0x0112] = 6
    for sizes, message in ((dict(width=60, height=100), ''), (dict(width=None, height=None), ''), (dict(width=100, height=60), r'c1_1.jpg: is 60 x 100 px when turned upright \(EXIF orientation 6\), its annotation says 100 x 60')):
        spec = write(tmp_path, lambda d: d['images'][1].update(sizes))
        picture(tmp_path/'frames'/'c1_1.jpg', exif=exif)
        if message: refused(spec, message); continue
        data = opened(spec)
        assert data.scenes[1].size == (100, 60) and data.picture(1).shape == (100, 60, 3)

def test_damaged_exif_is_no_reason_to_fail(tmp_path):
    picture(tmp_path/'a.jpg', exif=b'Exif\0\0II*\0\x08\0\0\0\xff\xff\xff\xff\xff')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert read_picture(tmp_path/'a.jpg').shape[:2] == check_picture(tmp_path/'a.jpg') == (60, 100)

@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
def test_sixteen_bits_keep_their_levels(tmp_path, kind):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path/'a', kind)
    got = read_picture(tmp_path/'a')
    assert got.shape == (16, 16, 3) and got.dtype == np.uint8 and (got[..., 0] == np.arange(256).reshape(16, 16)).all() and (got == got[..., :1]).all()

@pytest.mark.parametrize('type_', ['i4', 'f4'])
def test_levels_without_a_white_are_refused(tmp_path, type_):
    Image.fromarray(np.arange(60).reshape(6, 10).astype(type_)).save(tmp_path/'a.tif')
    for read in (read_picture, check_picture):
        with pytest.raises(DataError, match='a.tif: has 32 bits .* save it with 8 or 16 bits'): read(tmp_path/'a.tif')

def test_arrays_from_elsewhere(tmp_path):
    "Views of any stride are taken; floats, grey pictures and pictures of another size are refused by name."
    whole = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8)
    scenes = [Scene('a', (12, 20), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))]
    for view in (whole[..., ::-1], whole[:, ::-1], whole[::-1]):
        for size in (None, (6, 10)):
            data = SceneDataset(scenes, lambda i: view, size=size, source='mine')
            np.testing.assert_array_equal(data.picture(0), view if size is None else resize_picture(view.copy(), (6, 10)))
            data[0], data[0, True]
    for wrong, message in ((whole / 255, r'mine a: is an array \(12, 20, 3\) of float64; a picture is'), (whole[..., 0], r'\(12, 20\) of uint8'), (whole.transpose(2, 0, 1), r'\(3, 12, 20\)'),
                           (np.repeat(whole, 2, 0), 'mine a: is 20 x 24 px, and was 20 x 12 when')):
        with pytest.raises(DataError, match=message): SceneDataset(scenes, lambda i: wrong, source='mine')[0]


# -- annotation files as tools write them -----------------------------------------------------------------------------

def test_where_annotation_files_lie(tmp_path):
    for name in ('annotations.json', 'instances.json', 'result.json', '_annotations.coco.json', 'instances_default.json', 'annotations/instances_train2017.json', 'annotations/mine.json'):
        folder = tmp_path/name.replace('/', '_')
        write(folder)
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/'annotations.json').rename(folder/name)
        (folder/'frames').rename(folder/('train2017' if '2017' in name else 'images'))
        assert find_coco(folder) == folder/name and recognize(folder) == f'coco:{folder}' and len(opened(f'coco:{folder}')) == len(opened(f'coco:{folder}/{name}')) == 4
    (folder/'annotations'/'other.json').write_text('{}')
    refused(f'coco:{folder}', r'has 2 annotation files, mine.json, other.json; name one, such as coco:.*annotations/mine.json')
    refused(f'coco:{tmp_path}/gone.json', 'gone.json: no such file')

def test_where_pictures_lie(tmp_path):
    "As the name is written, first; then the usual places; there without its folders. Backslashes are slashes."
    spec = write(tmp_path, lambda d: [im.update(file_name=n) for im, n in zip(d['images'], ('frames/c1_0.jpg', 'frames\\c1_1.jpg', './c2_2.jpg', 'upload/7/c2_3.jpg'))])
    picture(tmp_path/'c2_2.jpg', value=250)  # in the file's own folder as well as in frames/
    data = opened(spec)
    assert [Path(p).relative_to(tmp_path).as_posix() for p in data.read.paths] == ['frames/c1_0.jpg', 'frames/c1_1.jpg', 'c2_2.jpg', 'frames/c2_3.jpg']
    assert data.names[0] == 'frames/c1_0.jpg' and opened(spec + '?gallery=c2*').names == ['./c2_2.jpg', 'upload/7/c2_3.jpg']

def test_one_picture_is_one_scene(tmp_path):
    for name in ('c1_0.jpg', './c1_0.jpg', 'frames/c1_0.jpg', 'frames\\c1_0.jpg'):
        refused(write(tmp_path, lambda d: d['images'][1].update(file_name=name)), r'images\[1\] \(.*\) is the picture of images\[0\] \(c1_0.jpg\); list each picture once')

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_encodings(tmp_path, encoding):
    spec = write(tmp_path)
    (tmp_path/'annotations.json').write_text((tmp_path/'annotations.json').read_text(), encoding=encoding)
    assert len(opened(spec)) == 4

def test_numbers_as_text(tmp_path):
    def change(d):
        for im in d['images']: im.update(id=str(im['id']), width=str(im['width']), height=float(im['height']), camera='3')
        for a in d['annotations']: a.update(image_id=float(a['image_id']), person_id=str(a['person_id']), id=str(a['id']), category_id='1', bbox=[str(v) for v in a['bbox']])
        d['queries'] = [30, '1']
    spec = write(tmp_path, change)
    data, query = opened(spec), opened(spec, 'query')
    assert data.scenes[2].person_id.tolist() == [9, -1, 4] and data.scenes[2].boxes[0].tolist() == [5, 10, 25, 50] and data.cameras.tolist() == [3] * 4 and query.person_id.tolist() == [4, 9]

@pytest.mark.parametrize('key,value', [('width', None), ('width', 0), ('height', ''), ('height', None)])
def test_sizes_that_the_tool_did_not_know(tmp_path, key, value):
    assert opened(write(tmp_path, lambda d: d['images'][1].update({key: value}))).scenes[1].size == (60, 100)

@pytest.mark.parametrize('change,message', [
    (dict(width='wide'), r"images\[1\] \(c1_1.jpg\) has height 60, width 'wide'; write numbers of pixels, or leave them out"), (dict(height=-60), 'has height -60'), (dict(height=60.5), 'has height 60.5'),
    (dict(width=[100]), r'has height 60, width \[100\]'), (dict(width=float('nan')), 'width nan'), (dict(id=True), 'has id True; write a whole number'), (dict(id=None), 'has id None'), (dict(id=1.5), 'has id 1.5'),
    (dict(camera='left'), "has camera 'left'; write a whole number"), (dict(camera=2 ** 60), 'has camera 1152921504606846976'), (dict(camera=True), 'has camera True'),
])
def test_images_that_cannot_be_right(tmp_path, change, message): refused(write(tmp_path, lambda d: d['images'][1].update(change)), message)

@pytest.mark.parametrize('change,message', [
    (dict(queries=[True]), r'queries\[0\] is True; write a whole number'), (dict(queries=[[1]]), r'queries\[0\] is \[1\]'), (dict(queries=[1e300]), 'write a whole number'), (dict(queries={}), None), (dict(queries=3), "'queries' is not a list"),
    (dict(categories=[dict(name='person')]), r"categories\[0\] has no 'id'"), (dict(categories=[3]), r"categories\[0\] has no 'id'"),
])
def test_files_that_cannot_be_right(tmp_path, change, message):
    spec = write(tmp_path, lambda d: d.update(change))
    if message: refused(spec, message, 'query')

@pytest.mark.parametrize('place,note', [(('track_id',), 'track_id'), (('attributes', 'track_id'), 'attributes.track_id'), (('instance_id',), 'instance_id'), (('attributes', 'person_id'), 'attributes.person_id')])
def test_where_identities_are(tmp_path, place, note):
    "CVAT's tracks are among the attributes; a box drawn without a track is someone without identity, and the summary says so."
    def change(d):
        for a in d['annotations']:
            who = a.pop('person_id')
            (a.setdefault('attributes', dict(occluded=False)) if len(place) > 1 else a)[place[-1]] = who
        holder = d['annotations'][4]
        (holder['attributes'] if len(place) > 1 else holder).pop(place[-1])
    data = opened(write(tmp_path, change))
    assert [s.person_id.tolist() for s in data.scenes] == [[4, 9], [], [9, -1, -1], [4]]
    assert data.notes == [f'identities are those of {note}: the same number is the same person, in every picture', f'1 people have no {place[-1]}: they are people without identity']

def test_a_missing_person_id_is_an_error_where_others_have_one(tmp_path):
    refused(write(tmp_path, lambda d: (d['annotations'][3].pop('person_id'), d['annotations'][3].update(track_id=3))), r"annotations\[3\] has no 'person_id'; add a whole number, -1")
    refused(write(tmp_path, lambda d: [a.pop('person_id') for a in d['annotations']]), r"annotations\[0\] has no 'person_id'; add a whole number, -1")

def test_boxes_that_do_not_count(tmp_path):
    def change(d):
        a = d['annotations']
        a[3].update(iscrowd='1')
        a[4].update(ignore=1)
        a[0].update(iscrowd='0', ignore=False, is_known=1)
        a[1].update(is_known=False)
        a += [dict(id=90, image_id=0, category_id=2), dict(id=91, image_id=0, category_id=7)]
    data = opened(write(tmp_path, change))
    assert [s.person_id.tolist() for s in data.scenes] == [[4, -1], [], [9], [4]]
    assert data.left_out == {'boxes marked iscrowd': 1, 'boxes marked ignore': 1, 'boxes of the category dog': 1, 'boxes of the category 7': 1}

def test_categories(tmp_path):
    def called(*names): return lambda d: (d.update(categories=[dict(id=k, name=n) for k, n in enumerate(names, 1)]), d['annotations'][1].update(category_id=2))
    assert opened(write(tmp_path, called('Person', 'car'))).scenes[0].person_id.tolist() == [4]
    spec = write(tmp_path, called('Pedestrian', 'car'))
    assert 'its categories are Pedestrian, car: say which are people, as in ?category=Pedestrian' in refused(spec, 'no category is called person')
    for option, who in (('pedestrian', [4]), ('ped*,CAR', [4, 9]), ('car', [9])): assert opened(f'{spec}?category={option}').scenes[0].person_id.tolist() == who
    refused(f'{spec}?category=rider', 'no category is called rider; its categories are Pedestrian, car')
    assert opened(write(tmp_path, lambda d: d.pop('categories'))).scenes[0].person_id.tolist() == [4, 9]

def test_missing_pictures(tmp_path):
    spec = write(tmp_path, lambda d: d.update(queries=[0, 30, 22]))
    (tmp_path/'frames'/'c1_0.jpg').unlink()
    refused(spec, 'c1_0.jpg: no such picture; .*missing=skip')
    data, query = opened(spec + '?missing=skip'), opened(spec + '?missing=skip', 'query')
    assert data.names == ['c1_1.jpg', 'c2_2.jpg', 'c2_3.jpg'] and data.left_out == {'pictures that are not there': 1, 'boxes in them': 2, 'queries whose picture or box is left out': 1}
    assert query.scene.tolist() == [2, 1] and query.person_id.tolist() == [4, 4]
    for f in (tmp_path/'frames').iterdir(): f.unlink()
    refused(spec + '?missing=skip', 'annotations.json: none of its 4 pictures is there; put them in')
    refused(spec + '?missing=no', 'missing=no is not one of error, skip')

def test_whole_bodies_beyond_the_border(tmp_path):
    spec = write(tmp_path, lambda d: (d['annotations'][3].update(bbox=[-40, 10, 60, 40]), d['annotations'][4].update(bbox=[95, 10, 60, 40]), d.update(queries=[22, 1])))
    refused(spec, r'annotations\[3\].*outside the picture.*outside=clip')
    data = opened(spec + '?outside=clip')
    assert data.scenes[2].boxes.tolist() == [[5, 10, 25, 50], [0, 10, 20, 50]] and '1 boxes reach outside their pictures and were cut to them' in data.notes
    assert data.left_out == {'boxes of which less than a quarter is inside their picture': 1, 'queries whose picture or box is left out': 1}
    assert opened(spec + '?outside=clip', 'query').person_id.tolist() == [9]

def test_shares_are_no_pixels(tmp_path):
    refused(write(tmp_path, lambda d: d['annotations'][3].update(bbox=[.1, .2, .3, .5])), r'annotations\[3\].*lies within the first pixel; write pixels; these look like shares')
    with pytest.raises(DataError, match='first pixel'): check_scene(Scene('x', (60, 100), [[0, 0, 1, 1]], [-1]), 'f')
    check_scene(Scene('x', (60, 100), [[0, 0, 1.5, 9]], [-1]), 'f')

@given(st.lists(st.tuples(*[st.floats(-300, 500, width=32)] * 4), max_size=6), st.floats(0, 1))
def test_cut_boxes_lie_inside(boxes, least):
    cut, keep, changed = cut_boxes(boxes, (100, 200), least)
    for before, after, k, c in zip(boxes, cut.tolist(), keep, changed):
        inside = max(0, min(before[2], 200) - max(before[0], 0)) * max(0, min(before[3], 100) - max(before[1], 0))
        whole = max(0, before[2] - before[0]) * max(0, before[3] - before[1])
        if c: assert k and 0 <= after[0] <= after[2] <= 200 and 0 <= after[1] <= after[3] <= 100
        if whole > 1: assert k == (inside >= least * whole) or abs(inside - least * whole) < 1e-3 * whole


# -- films ------------------------------------------------------------------------------------------------------------

ROWS = [(f, 1, 5, 10, 20, 40, 1, 1, 1.) for f in range(1, 5)] + [(f, 2, 60, 10, 20, 40, 1, 1, 1.) for f in range(5, 9)]

def film(folder, rows=ROWS, name='{:06d}.jpg', ini=True, first=1):
    for f in range(first, first + 8): picture(folder/'img1'/name.format(f))
    (folder/'gt').mkdir(exist_ok=True)
    (folder/'gt'/'gt.txt').write_text('\n'.join(','.join(map(str, r)) for r in sorted(rows)) + '\n')
    if ini: (folder/'seqinfo.ini').write_text('[Sequence]\nimDir=img1\nframeRate=1\nseqLength=8\nimWidth=100\nimHeight=60\nimExt=.jpg\n')
    return f'mot:{folder.parent}?every=1'

def test_whole_bodies_of_films(tmp_path):
    "Cut and counted where visibility is told; by the share inside where it is not. A row that shows nothing of the picture is an error only where it claims to be visible."
    outside = [(2, 3, -55, 5, 100, 50, 1, 1, .45), (3, 3, -75, 5, 100, 50, 1, 1, .3), (4, 3, -90, 5, 100, 50, 1, 1, .1)]
    data = opened(film(tmp_path/'nine'/'A', ROWS + outside), 'train')
    assert [s.boxes.tolist()[1:] for s in data.scenes] == [[], [[0, 5, 45, 55]], [[0, 5, 25, 55]], []]
    assert data.left_out == {'people of whom less than visible=0.25 shows, in all frames': 1} and data.notes == ['in all frames 2 boxes reach outside their pictures and were cut to them']
    ten = [(*r[:7], -1, -1, -1) for r in ROWS + outside + [(1, 4, -300, 5, 100, 50, 1)]]
    data = opened(film(tmp_path/'ten'/'A', ten), 'train')
    assert [s.boxes.tolist()[1:] for s in data.scenes] == [[], [[0, 5, 45, 55]], [[0, 5, 25, 55]], []] and data.left_out == {'boxes of which less than visible=0.25 is inside their picture, in all frames': 2}
    refused(film(tmp_path/'out'/'A', ROWS + [(2, 3, -300, 5, 100, 50, 1, 1, 1)]), 'gt.txt: line 3 .*outside the picture', 'train')

@pytest.mark.parametrize('name', ['{:06d}.jpg', '{:08d}.jpg', '{}.jpg', '{:06d}.JPG'])
def test_names_of_frames(tmp_path, name):
    data = opened(film(tmp_path/'A', name=name), 'train')
    assert data.names == [f'A/{name.format(f)}' for f in range(1, 5)] and data.picture(0).shape == (60, 100, 3)

def test_frames_that_are_not_there(tmp_path):
    spec = film(tmp_path/'A')
    (tmp_path/'A'/'img1'/'000002.jpg').unlink()
    refused(spec, '000002.jpg: no such picture; put it there, or open with missing=skip', 'train')
    data = opened(spec + '&missing=skip', 'train')
    assert len(data) == 3 and data.left_out == {'pictures that are not there': 1}
    for f in (tmp_path/'A'/'img1').iterdir(): f.unlink()
    refused(spec + '&missing=skip', 'none of the 4 of this split is there', 'train')

def test_a_film_is_no_longer_than_its_pictures_and_rows(tmp_path):
    "seqLength=5000000 took minutes and gigabytes before it was an error."
    spec, ini = film(tmp_path/'A'), tmp_path/'A'/'seqinfo.ini'
    ini.write_text(ini.read_text().replace('seqLength=8', 'seqLength=5000000'))
    refused(spec, 'seqinfo.ini: says seqLength=5000000, and the last frame with a picture or a row in gt.txt is 8; correct seqLength, .*missing=skip', 'train')
    data = opened(spec + '&missing=skip', 'train')
    assert len(data) == 4 and data.left_out == {'frames after the last picture, in all frames': 4999992}
    picture(tmp_path/'A'/'img1'/'5000000.jpg')
    for missing in ('', '&missing=skip'): refused(spec + missing, 'says seqLength=5000000, and only 9 frames have a picture or a row in gt.txt; correct seqLength', 'train')
    (tmp_path/'A'/'img1'/'5000000.jpg').unlink()
    ini.write_text(ini.read_text().replace('seqLength=5000000', 'seqLength=9'))
    assert opened(spec.replace('every=1', 'every=3'), 'train').names[0] == 'A/000001.jpg'  # a last frame that is not sampled is not needed

def test_benchmarks_need_all_their_pictures(tmp_path):
    from test_layouts import write_prw
    refused(write_prw(tmp_path/'prw') + '?missing=skip', r"no option 'missing' \(missing=skip is for coco: and mot:.*there are protocol")

def test_labels_of_ones_own(tmp_path):
    rows = [(*r[:7], 3, 1.) for r in ROWS] + [(f, 9, 30, 30, 40, 20, 1, 1, 1.) for f in range(1, 9)]
    spec = film(tmp_path/'A', rows)
    (tmp_path/'A'/'gt'/'labels.txt').write_text('\ufeffcar\ndog\nPerson\n')
    data = opened(spec, 'train')
    assert {tuple(b) for s in data.scenes for b in s.boxes.tolist()} == {(5, 10, 25, 50)} and data.num_ids == 1 and data.left_out == {'rows of the class car, in all frames': 8}
    assert opened(spec + '&category=car', 'train').scenes[0].boxes.tolist() == [[30, 30, 70, 50]]
    refused(spec + '&category=rider', 'labels.txt: no category is called rider; its categories are Person, car, dog', 'train')
    (tmp_path/'A'/'gt'/'labels.txt').unlink()
    refused(spec + '&category=car', 'labels.txt: no such file', 'train')

def test_a_film_without_seqinfo(tmp_path):
    spec = film(tmp_path/'A', ini=False)
    refused(f'mot:{tmp_path}', 'seqinfo.ini: no such file; .*every=', 'train')
    data = opened(spec, 'train')
    assert len(data) == 4 and data.scenes[0].size == (60, 100)
    for f in (tmp_path/'A'/'img1').iterdir(): f.unlink()
    refused(spec, 'img1: has no pictures such as 000001.jpg', 'train')


# -- cameras ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name,camera', [
    ('c2_002_90.png', 2), ('c3s1_000501.jpg', 3), ('0002_c1s1_000451_03.jpg', 1), ('0005_c2_f0046985.jpg', 2), ('0001C4T0001F001.jpg', 4), ('0000_000_05_0303morning_0008_1.jpg', 5), ('0002_c002_00030600_0.jpg', 2),
    ('cam5_0001.jpg', 5), ('camera6-frame10.jpg', 6), ('cam1/0001.jpg', 1), ('set/Camera_03/img/7.jpg', 3), ('cam2\\0001.jpg', 2), ('c5/0001.jpg', 5), ('cam3/c4_1.jpg', 4), ('CAM-12 0001.jpg', 12), ('ch01_20240501.jpg', 1), ('c7.mp4', 7),
    ('s15538.jpg', -1), ('000001.jpg', -1), ('batch3.jpg', -1), ('scam3.jpg', -1), ('clip1.jpg', -1), ('IMG_0001.jpg', -1), ('C20240501123000123456789.jpg', -1), ('c99999999999999999999.jpg', -1), ('', -1), ('cam.jpg', -1)])
def test_cameras_in_names(name, camera): assert camera_in(name) == camera

def test_unknown_cameras_are_said(tmp_path):
    names = ('a_0.jpg', 'c1_1.jpg', 'b_2.jpg', 'b_3.jpg')
    spec = write(tmp_path, names=names)
    data = opened(spec)
    assert data.cameras.tolist() == [-1, 1, -1, -1] and data.notes == ['the camera of 3 of 4 pictures is not known: neither the file nor names such as a_0.jpg tell it']
    refused(spec + '?protocol=cross-camera', 'annotations.json: protocol=cross-camera wants the camera of every picture; .*a_0.jpg', 'query')
    text = format_summary(summary(spec, progress=False))
    assert 'the camera of 3 of 4 pictures is not known' in text and 'protocol=all' in text
    assert not opened(write(tmp_path, lambda d: [im.update(camera=2) for im in d['images']], names=names)).notes


# -- the same people on both sides ------------------------------------------------------------------------------------

def test_what_both_sides_have_in_common_is_counted(tmp_path):
    spec = write(tmp_path)
    train, gallery, query = (opened(spec, s) for s in SPLITS)
    assert in_common(train, gallery, query) == dict(people=2, searched=2, pictures=4, scenes=4)
    assert '2 of 2 people searched were trained on, and 4 of 4 pictures searched' in in_common_warning(train, gallery, query)
    apart = spec + '?train=c1_0*&gallery=c2*&query=c2*'
    assert in_common(opened(apart, 'train'), opened(apart)) == dict(people=2, searched=2, pictures=0, scenes=2)
    other = write(tmp_path/'other')
    assert in_common_warning(train, opened(other)) == '', 'the numbers of another file are other people'
    assert in_common(train, opened(f'coco:{tmp_path}/annotations.json'))['people'] == 2
    synth = 'synth:tiny?train_scenes=4&test_scenes=6&train_ids=9&test_ids=8&queries=3&gallery=4&size=96x160'
    assert in_common_warning(opened(synth, 'train'), opened(synth), opened(synth, 'query')) == ''
    assert '2 of 2 people searched were trained on' in format_summary(summary(spec, progress=False))

def test_benchmarks_have_nothing_in_common(tmp_path):
    for spec in (write_prw(tmp_path/'prw'), write_mot(tmp_path/'mot'), write_duke(tmp_path/'duke'), write_cuhk(tmp_path/'cuhk')):
        assert in_common_warning(opened(spec, 'train'), opened(spec), opened(spec, 'query')) == '' and must_split(spec) is None

def test_a_set_without_a_split_is_refused(tmp_path):
    spec = write(tmp_path)
    with pytest.raises(DataError, match=r'has no split, .*coco:.*\?train=c1\*&gallery=c2\*'): must_split(spec)
    with pytest.raises(DataError, match='has no split'): must_split(spec + '?query=c1*')
    for options in ('train=c1*', 'gallery=c2*', 'train=*&gallery=*'): must_split(f'{spec}?{options}')

def test_summaries_say_what_was_left_out(tmp_path):
    spec = write(tmp_path, lambda d: (d['annotations'][3].update(ignore=1), d['annotations'].append(dict(id=90, image_id=0, category_id=2))))
    (tmp_path/'frames'/'c1_1.jpg').unlink()
    text = format_summary(summary(spec + '?missing=skip', progress=False))
    for line in ('1 boxes marked ignore', '1 boxes of the category dog', '1 pictures that are not there'): assert f'  {line}\n' in text + '\n'

def test_summary_of_people_without_names(tmp_path):
    text = format_summary(summary(write(tmp_path, lambda d: [a.update(person_id=-1) for a in d['annotations']]), progress=False))
    assert 'nobody of the query scenes is in another gallery scene' in text and 'gallery' in text


# -- specs ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['what?', 'a&b', 'a?b=c&d', '100%', 'a=b', 'a b?x', 'ü?'])
def test_paths_of_any_name(tmp_path, name):
    folder = tmp_path/name
    spec = write(folder)
    for s in (spec, f'{spec}?gallery=c2*', make_spec('coco', folder, dict(gallery='c2*', train='c?_0*'))): assert parse_spec(s)[:2] == ('coco', str(folder))
    assert opened(make_spec('coco', folder, dict(gallery='c?_[23]*'))).names == ['c2_2.jpg', 'c2_3.jpg']
    assert open_protocol(f'{spec}?gallery=c2*&query=c?_*', 'protocol=cross-camera', progress=False).queries.candidates is not None
    (folder/'list & more.txt').write_text('0\n')
    assert len(opened(make_spec('coco', folder, dict(queries='list & more.txt')), 'query')) == 1

@given(st.dictionaries(st.sampled_from(['train', 'gallery', 'query']), st.text('ab&%?=*[]', min_size=1, max_size=8), min_size=1))
def test_specs_survive_being_written(options): assert parse_spec(make_spec('coco', '/no/such', options)) == ('coco', '/no/such', options)

@pytest.mark.parametrize('text', ['seed=-1', 'people=nan', 'people=inf', 'people=-3', 'near=1', 'near=1xnan', 'near=0x1', 'size=100000x100000', 'size=20000x20000', 'size=96', 'size=-96x160', 'labelled=nan', 'labelled=2', 'cast=inf',
                                  'lookalikes=7', 'seed=1e400', 'seed=99999999999999999999', 'train_scenes=1000000000', 'cameras=0', 'queries=-3', 'seed=1.5', 'size=axb', 'near='])
def test_bad_values_of_painted_sets(text):
    with pytest.raises(DataError, match=r'synth:tiny: .*(is not a|has more than|seed)'): synth_config('tiny', dict([text.split('=')]))

@pytest.mark.parametrize('text', ['people=0', 'labelled=0.001'])
def test_values_that_make_no_scenes(text):
    for split in SPLITS: refused(f'synth:tiny?train_scenes=4&test_scenes=6&test_ids=8&queries=3&{text}', 'synth:tiny: (no scenes can be made with|people=0 is not a float of at least 1)', split)

def test_good_values_of_painted_sets():
    config = synth_config('tiny', dict(near='2.2x1.5', seed='3', people='4', size='96x160', labelled='1'))
    assert (config.near, config.seed, config.people, config.size, config.labelled) == ((2.2, 1.5), 3, 4., (96, 160), 1.)

def test_homes_of_nobody(monkeypatch):
    for text in ('~nosuchuser_/x', 'prw:~nosuchuser_/x', 'coco:~nosuchuser_/x'):
        with pytest.raises(DataError, match='~nosuchuser_/x: that home folder is not known'): opened(text) if ':' in text else user_path(text)
    with pytest.raises(DataError, match='home folder'): recognize('~nosuchuser_/x')
    monkeypatch.setenv('HOME', '/somewhere')
    assert user_path('~/x') == Path('/somewhere/x')

def test_data_without_a_home(tmp_path, monkeypatch):
    "A container's user without an entry: everything is read, nothing is kept."
    from person_search_nb import matfile
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr(matfile.Path, 'home', lambda: (_ for _ in ()).throw(RuntimeError('Could not determine home directory.')))
    spec = write_cuhk(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    assert len(opened(spec, 'query')) == 2 and sorted(tmp_path.rglob('*')) == before


# -- searches in which nothing can be found ---------------------------------------------------------------------------

ACROSS = 'protocol=cross-camera'

@pytest.mark.parametrize('camera,message', [(7, 'no gallery scene is of another camera'), (-1, 'wants the camera of every picture')])
def test_cross_camera_wants_two_cameras_of_coco(tmp_path, camera, message):
    spec = write(tmp_path, lambda d: [im.update(camera=camera) for im in d['images']])
    refused(f'{spec}?{ACROSS}', message, 'query')
    assert len(opened(spec, 'query')) == 5
    assert message in format_summary(summary(spec, progress=False))

def test_cross_camera_wants_somebody_seen_by_two(tmp_path):
    spec = write(tmp_path, ids=((4, 9), (4, 9), (5,), (5,)))
    refused(f'{spec}?{ACROSS}', 'nobody who is searched for is seen by another camera', 'query')

def test_cross_camera_wants_the_cameras_of_prw(tmp_path):
    spec = write_prw(tmp_path)
    opened(f'{spec}?{ACROSS}', 'query')
    names = {'c1s1_000001': 'yard_000001', 'c2s1_000001': 'road_000001', 'c2s1_000002': 'road_000002'}
    for old, new in names.items():
        for f in tmp_path.rglob(f'{old}*'): f.rename(f.with_name(f.name.replace(old, new)))
    save(tmp_path/'frame_test.mat', img_index_test=cell([*names.values()]))
    (tmp_path/'query_info.txt').write_text('7 10 10 20 40 yard_000001\n')
    assert len(opened(spec, 'query')) == 1
    refused(f'{spec}?{ACROSS}', 'wants the camera in the name of every test frame.*yard_000001', 'query')

def test_cross_camera_wants_two_films_of_the_same_people(tmp_path):
    refused(f'{write_mot(tmp_path/"one", films=("A-01",))}?{ACROSS}', 'no gallery scene is of another camera', 'query')
    two = write_mot(tmp_path/'two')
    refused(f'{two}?{ACROSS}', 'nobody who is searched for is seen by another camera', 'query')
    opened(f'{two}?shared=yes&{ACROSS}', 'query')

def test_camera_0_is_a_camera(tmp_path):
    names = ('cam0_0.jpg', 'cam0_1.jpg', 'cam1_2.jpg', 'cam1_3.jpg')
    spec = write(tmp_path, names=names)
    assert opened(spec).cameras.tolist() == [0, 0, 1, 1] and not opened(spec).notes
    assert opened(f'{spec}?{ACROSS}', 'query').candidates.tolist()[0] == [2, 3]
    assert camera_told('cam0/1.jpg') == 0 and camera_told('1.jpg') is None


# -- COCO: which picture, which box, which query is meant -------------------------------------------------------------

def test_a_picture_of_another_folder_is_not_taken(tmp_path):
    "Two cameras number their pictures alike, and one picture is missing."
    names = ('cam1/1.jpg', 'cam2/1.jpg', 'cam1/2.jpg', 'cam2/2.jpg')
    for c in ('cam1', 'cam2'): (tmp_path/'frames'/c).mkdir(parents=True)
    spec = write(tmp_path, names=names)
    picture(tmp_path/'1.jpg')
    (tmp_path/'frames'/'cam2'/'1.jpg').unlink()
    refused(spec, 'cam2/1.jpg: no such picture')
    data = opened(spec + '?missing=skip')
    assert data.names == ['cam1/1.jpg', 'cam1/2.jpg', 'cam2/2.jpg'] and data.left_out == {'pictures that are not there': 1}

def test_pictures_found_without_their_folders_are_said(tmp_path):
    spec = write(tmp_path, lambda d: [im.update(file_name='upload/7/' + im['file_name']) for im in d['images']])
    assert opened(spec).notes == ['4 pictures were found without the folders of their names, such as upload/7/c1_0.jpg']

def test_boxes_written_as_corners_are_asked_about(tmp_path):
    "Read as x, y, width, height they lie mostly inside, and are cut."
    spec = write(tmp_path, lambda d: d['annotations'][3].update(bbox=[55, 5, 64, 40]))
    first, second = opened(spec).notes
    assert first == '1 boxes reach outside their pictures and were cut to them'
    assert second.startswith('of these, 1 would be inside if bbox were corners, such as annotations[3]: are they x1')
    assert second in format_summary(summary(spec, progress=False))
    whole = write(tmp_path/'whole', lambda d: d['annotations'][3].update(bbox=[-5, 10, 20, 40]))
    assert opened(whole).notes == [first]
    assert not opened(write(tmp_path/'hasty', lambda d: d['annotations'][3].update(bbox=[-1, 10, 20, 50.5]))).notes
    assert opened(write_prw(tmp_path/'prw', change=lambda rows: rows['c2s1_000001'].append([-2, 90, 5, 15, 30]))).notes == [first]

def test_a_box_listed_twice_is_said(tmp_path):
    spec = write(tmp_path, lambda d: d['annotations'].append(dict(id=77, image_id=14, bbox=[35, 10, 20, 40], category_id=1, person_id=-1)))
    [note] = opened(spec).notes
    assert note.startswith('1 boxes repeat another box of their picture, such as annotations[6]: they count twice')
    prw = write_prw(tmp_path/'prw', change=lambda rows: rows['c2s1_000001'].append([-2, 5, 5, 12, 30]))
    [note] = opened(prw).notes
    assert 'c2s1_000001.jpg.mat, scene c2s1_000001.jpg' in note

@pytest.mark.parametrize('change,message', [
    (lambda d: (d['annotations'][3].update(id=0), d.update(queries=[0])), r'queries\[0\] is 0, which is the id of annotations\[0\] and annotations\[3\]; give each'),
    (lambda d: d.update(queries=[1, '1']), r"queries\[1\] is '1', as queries\[0\] is; delete one"), (lambda d: d.update(queries=[0, 1, 1.0]), r'queries\[2\] is 1.0, as queries\[1\] is'),
    (lambda d: d.update(queries=[]), 'its list "queries" names nobody in the query scenes')])
def test_lists_of_queries_are_clear(tmp_path, change, message):
    spec = write(tmp_path, change)
    refused(spec, message, 'query')

def test_a_list_of_queries_of_other_scenes(tmp_path):
    spec = write(tmp_path, lambda d: d.update(queries=[0]))
    refused(spec + '?query=c2*', 'names nobody in the query scenes', 'query')
    assert len(opened(spec + '?query=c2*')) == 4

def test_ids_of_annotations_matter_only_to_queries(tmp_path):
    assert len(opened(write(tmp_path, lambda d: [a.update(id=5) for a in d['annotations']]), 'query')) == 5

def test_an_option_is_given_once(tmp_path):
    refused(write(tmp_path) + '?gallery=c1*&train=*&gallery=c2*', 'gallery is given twice; give each option once')


# -- scenes and films made by hand ------------------------------------------------------------------------------------

@pytest.mark.parametrize('boxes,ids', [([[1, 2, 30, 40, .9]], [-1]), ([[1, 2, 30, 40, .9]] * 4, [-1] * 4), ([1, 2, 30, 40], [-1]), ([[1, 2, 30, 40], [1, 2, 30]], [1, 2]), ([[1, 2, 30, 40]], [1, 2]), ([[1, 2, 30, 40]], []), ([[1, 2, 30, 40]], [1.7]), ([['a', 2, 3, 4]], [1])])
def test_boxes_of_another_form(boxes, ids):
    with pytest.raises(DataError, match='^mine: scene a.jpg has boxes .*give each box four numbers') as e: check_scene(Scene('a.jpg', (60, 100), boxes, ids), 'mine')
    assert '\n' not in str(e.value)

def test_a_scene_without_people_has_any_form():
    for boxes in ([], np.zeros((0, 0)), np.zeros((0, 4))): assert check_scene(Scene('a.jpg', (60, 100), boxes, []), 'mine').boxes.shape == (0, 4)

@pytest.mark.parametrize('rate,frames', [('29.97', 30), ('25', 25), ('0.4', 1), ('23.976', 24)])
def test_a_film_of_29_97_frames_a_second(tmp_path, rate, frames):
    "A scene a second is every 30th frame."
    film(tmp_path/'A')
    ini = tmp_path/'A'/'seqinfo.ini'
    ini.write_text(re.sub('frameRate=.*', f'frameRate={rate}', ini.read_text()))
    assert read_film(tmp_path/'A').rate == frames

@pytest.mark.parametrize('change', ['seqLength=8.5', 'imWidth=99.5', 'frameRate=0', 'frameRate=nan', 'seqLength=inf'])
def test_numbers_of_a_film(tmp_path, change):
    film(tmp_path/'A')
    ini = tmp_path/'A'/'seqinfo.ini'
    ini.write_text(re.sub(change.partition('=')[0] + '=.*', change, ini.read_text()))
    with pytest.raises(DataError, match='seqinfo.ini: cannot be used'): read_film(tmp_path/'A')


# -- marks of films, worlds without queries ---------------------------------------------------------------------------------

@pytest.mark.parametrize('column,value,message', [(6, 'nan', 'counts is nan; write 0 or 1'), (8, 'nan', 'visible is nan; write a share'), (8, '80', 'visible is 80; write a share from 0 to 1'), (8, 'inf', 'visible is inf')])
def test_a_row_says_whether_it_counts_and_what_shows(tmp_path, column, value, message):
    rows = [list(r) for r in ROWS]
    rows[2][column] = value
    refused(film(tmp_path/'A', rows), f'gt.txt: line 3: {message}', 'train')

@pytest.mark.parametrize('visible', ['1.5', '25', '-0.1', 'nan', 'much'])
def test_visible_is_a_share(tmp_path, visible):
    refused(film(tmp_path/'A') + f'&visible={visible}', f'visible={visible} is no share from 0 to 1', 'train')
    assert len(opened(film(tmp_path/'A') + '&visible=1', 'train'))

LONELY = 'synth:tiny?train_scenes=2&test_scenes=2&test_ids=200&gallery=1&queries=3&size=96x160&seed=3'

def test_a_world_without_queries_says_so(tmp_path, command):
    assert len(opened(LONELY)) == 2
    refused(LONELY, 'lists no queries: nobody is seen twice; take more scenes', 'query')
    for layout in ('prw', 'cuhk-sysu'):
        ran = command('make-data', LONELY, tmp_path/layout, '--layout', layout, '--workers', 1)
        assert ran.returncode == 1 and 'lists no queries: nobody is seen twice; take more scenes' in ran.stderr and not (tmp_path/layout).exists()


# -- numbers too large, films too short ---------------------------------------------------------------------------------

@pytest.mark.parametrize('value', [4611686018427387904, -2 ** 60, '4611686018427387904', 1e300])
def test_a_number_that_is_too_large_is_called_so(tmp_path, value):
    "The advice was to write a whole number, which it is."
    large = 'which is too large: at most 9,007,199,254,740,991; write a whole number'
    refused(write(tmp_path/'a', lambda d: d['images'][1].update(camera=value)), rf'images\[1\].* has camera .*, {large}$')
    refused(write(tmp_path/'b', lambda d: d['annotations'][1].update(person_id=value)), rf'annotations\[1\] has person_id .*, {large}, -1 for a person without identity$')
    assert 'too large' not in refused(write(tmp_path/'c', lambda d: d['images'][1].update(camera='x')), r"camera 'x'; write a whole number$")

def test_a_film_whose_tracks_all_begin_early_has_no_gallery(tmp_path):
    "A longer film and more frames, which were advised, help nobody."
    early = lambda lines: [[f, p, 5 + 20 * p, 10, 12, 30, 1, 1, 1] for p in (1, 2) for f in range(1, 81)]
    spec = write_mot(tmp_path/'a', early, films=('A-01',))
    for split in ('gallery', 'query'):
        refused(f'{spec}?every=5', f'all tracks begin in the first half of their film, so nobody is for {split}; give a film in which people come in the second half', split)
    opened(f'{spec}?every=5', 'train')
    refused(f'{spec}?every=80', 'no sampled frame is for gallery; give a longer film, or a smaller every=')
