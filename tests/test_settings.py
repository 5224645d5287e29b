"Settings and options: what is no setting, or not what a setting may be, is one line before any work, and leaves nothing behind."
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings as examples, strategies as st

from person_search_nb import systems
from person_search_nb.safe_reading import printable
from person_search_nb.attention import ARM, ATTENTION
from person_search_nb.backbones import resnet_backbone
from person_search_nb.settings import check_device, check_training, TRAIN_KINDS, TrainConfig
from person_search_nb.models import list_models, model_settings, MODELS
from person_search_nb.recipe_settings import kind_of, NET_KINDS, parse_setting, parse_size, Recipe
from person_search_nb.recipe_settings import RECIPE_KINDS
from person_search_nb.preset_rules import PRESETS
from person_search_nb.presets import check_here, make_recipe, values
from person_search_nb.recipes import read_recipe

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=6&test_scenes=4&train_ids=6&test_ids=4&queries=3&gallery=3&size=96x160'
SMALL = ['width=0.125', 'start=', 'imprint=False', 'steps=1', 'warmup=0', 'batch_size=2']

WRONG = ['batch_size=0', 'batch_size=2.5', 'accumulate=0', 'checkpoint_every=0', 'width=1e6', 'width=0', 'width=-1', 'device=foo', 'device=cuda:99', 'id_loss=foo', 'id_loss=softmx', 'attention=arms', 'roi_op=foo',
         "weights={'id':'x'}", "weights={'foo':1}", "weights={'id':-1}", 'weights=3', 'heights=x', 'heights=()', 'proposals=5', 'proposals=0,0', 'dim=-1', 'dim=x', 'model=oim', 'data=prw:x', 'preset=fast',
         'optimizer=lion', 'schedule=foo', 'precision=foo', 'clip=-1', 'flip=7', 'epochs=-1', 'epochs=0', 'epochs=1e18', 'steps=1000000000000', 'iou=5', 'iou=0', 'warmup=-5', "milestones=('a',)", 'milestones=3',
         'rois_per_image=-3', 'lr=nan', 'lr=1e999', 'lr=-1', 'seed=-1', 'seed=1.5', 'ema=1', 'gamma=2', 'freeze=9', 'norm=foo', 'augment=foo', 'workers=-1', 'roi_size=1000000', 'rpn_channels=0', 'queue=-1',
         'lambdas=1,2', 'lambdas=2,1,1', 'temperature=0', 'form=foo', 'teach=dkd', 'detect={"mu":"x"}', 'crops=5', 'crops=1,1', 'crops_from=foo', 'size=128', 'size=0x0', 'size=axb', 'size=7', 'stages=5',
         "stages=({'name':'../x'},)", "stages=({'nom':'x'},)", 'cache=3', 'imprint=maybe', 'hinton=1', "parts={'x':3}", "parts={'reid':{'epochs':3}}", "parts={'reid':{'lr':'x'}}", 'reid.epochs=3', 'frozen=x',
         "frozen=('nose',)", 'start=nowhere.safetensors', 'start=shipped:nobody', 'teacher=nowhere.safetensors', 'after=nowhere.safetensors', 'anchor_spacing=foo', 'one_norm=3', 'recipe=1', 'nothing=1',
         'lr', '=', '=3', '.=3', 'lr.=3', 'resume=False', 'net={}', 'train=3', 'start=\0', 'matching=dot', 'anchors=square', 'rpn_high=2', 'search_threshold=nan', 'detections=0', 'evaluate_every=-1', 'momentum=1']


@pytest.mark.parametrize('setting', WRONG)
def test_a_wrong_setting_is_one_line_and_leaves_no_folder(setting, tmp_path, command):
    ran = command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path / 'a/b', '--set', *SMALL, setting, cwd=tmp_path)
    assert ran.returncode == 1 and 'Traceback' not in ran.stderr and 'Error' not in ran.stderr
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith('person-search train: ') and all(line.isprintable() for line in ran.stderr.strip().splitlines()[-1:])
    name = 'lr' if "'lr'" in setting else setting.partition('=')[0].rpartition('.')[2]
    assert not name or name in line, line
    assert not (tmp_path / 'a').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu(command, tmp_path):
    for call in (['train', '--preset', 'tiny', '--out', tmp_path / 'x', '--set', 'device=cuda'], ['evaluate', 'shipped:hdl-student-fast', '--device', 'cuda']):
        ran = command(*call)
        assert ran.returncode == 1 and 'no such device in this machine' in ran.stderr and 'device=cpu' in ran.stderr and not (tmp_path / 'x').exists()


OPTIONS = [['evaluate', 'shipped:hdl-student-fast', '--batch-size', '0'], ['evaluate', 'shipped:hdl-student-fast', '--device', 'foo'], ['evaluate', 'shipped:hdl-student-fast', '--iou', '7'],
           ['evaluate', 'shipped:hdl-student-fast', '--workers', '-1'], ['evaluate', 'shipped:hdl-student-fast', '--score-threshold', 'nan'], ['evaluate', ''], ['evaluate', 'shipped:nobody'],
           ['ablate', 'table7', '--seeds'], ['ablate', 'table7', '--seeds', '-1'], ['ablate', ' '], ['data', '~nosuchuser/x'], ['data', ''], ['index', '', '--out', 'g'], ['index', 'x', '--out', ''],
           ['index', 'x', '--every', '-1'], ['index', 'x', '--every', 'inf'], ['train', '--out', ''], ['train', '--data', ''], ['train', '--data', 'nonsense'], ['train', '--preset', ''], ['distill', ''],
           ['distill', 'nowhere.safetensors'], ['demo', '--out', ''], ['demo', '--seed', '-1'], ['cost', '--size', ''], ['cost', '--size', '0x0'], ['cost', '--size', 'hdl-prw'], ['cost', '--width', 'nan'],
           ['cost', '--width', '0'], ['cost', '--models', 'nobody'], ['export', 'nowhere.safetensors', 'x.onnx'], ['make-data', 'synth:tiny', ''], ['make-data', 'synth:tiny', 'x', '--workers', '-1'],
           ['search', 'shipped:hdl-student-fast', '--query', '-1'], ['search', 'shipped:hdl-student-fast', '--number', '0'], ['presets', 'nobody'], ['presets', 'oim', '--set', 'lr=x']]


@pytest.mark.parametrize('call', OPTIONS, ids=' '.join)
def test_a_wrong_option_is_one_line_before_any_work(call, tmp_path, command):
    ran = command(*call, cwd=tmp_path)
    assert ran.returncode == 1 and 'Traceback' not in ran.stderr and len(ran.stderr.strip().splitlines()) == 1, ran.stderr
    assert ran.stderr.startswith(f'person-search {call[0]}: ') and not list(tmp_path.iterdir())


def test_a_student_without_its_teacher_waits_for_nothing(command, tmp_path):
    ran = command('distill', tmp_path / 'none.safetensors', '--preset', 'tiny', '--out', tmp_path / 'x')
    assert 'teacher=' in ran.stderr and 'no such model file' in ran.stderr and not (tmp_path / 'x').exists()


# what is accepted --------------------------------------------------------------------------------------------------------

def test_every_setting_has_a_kind_that_takes_what_presets_say():
    for m in list_models():
        for p in PRESETS:
            for data in ('synth:tiny', 'prw:PATH', 'cuhk-sysu:PATH'):
                for k, v in values(make_recipe(m, data, p)).items(): assert kind_of(m, k).fits(v), (m, p, k, v)
    assert {*RECIPE_KINDS, *TRAIN_KINDS, *NET_KINDS} >= {*TrainConfig.__dataclass_fields__, *Recipe.__dataclass_fields__} - {'train'} | {k for m in list_models() for k in model_settings(m)}


@pytest.mark.parametrize('typed,meant', [('128x224', (128, 224)), ('hdl-prw', 'hdl-prw'), ('', None), ('None', None), ((128, 224), (128, 224)), ([128, 224], (128, 224)), (None, None)])
def test_a_size_is_the_same_in_shell_and_notebook(typed, meant):
    assert parse_size(typed) == meant == make_recipe('oim', SPEC, 'tiny', size=typed).size == make_recipe('e2e-rss', SPEC, 'tiny', **{'cutouts.size': typed}).stages[0].get('size')


def test_rules_skip_what_somebodys_model_lacks(monkeypatch):
    "An own factory without anchors of its own, at every preset."
    def mine(num_ids, heights, width, **kw): return systems._hdl_student_fast(num_ids, heights, width, **kw)
    monkeypatch.setitem(MODELS, 'my-student', mine)
    for preset in PRESETS:
        if not preset.startswith('paper-'): assert make_recipe('my-student', SPEC, preset).model == 'my-student'
    assert make_recipe('my-student', SPEC, 'tiny').net['width'] == 0.25 and 'anchors' not in make_recipe('my-student', SPEC, 'tiny').net


def test_classes_get_their_names_and_nameless_functions_the_way_out(registries):
    class Twice(ARM): pass
    recipe = make_recipe('hdl-student-fast', SPEC, 'tiny', attention=Twice, trunk=lambda_free)
    assert recipe.net['attention'] == 'Twice' and recipe.net['trunk'] == 'lambda_free' and ATTENTION['Twice'] is Twice and check_here(recipe)
    with pytest.raises(ValueError, match='augment=.*so give a name.*register_augmentation'): make_recipe('hdl-student-fast', SPEC, 'tiny', augment=lambda *a: a)
    with pytest.raises(ValueError, match='trunk: .*has no name'): make_recipe('hdl-student-fast', SPEC, 'tiny', trunk=lambda width, weights: None)


def lambda_free(width=1., weights=None): return resnet_backbone(18, width)


@pytest.mark.parametrize('setting', ["dim='big'", "width='1'", 'width=1e9', 'width=-1', 'roi_size=2.5', 'proposals=5', "matching='cos'", 'queue=-1', 'rss_classes=0', "norms='yes'", 'iou=2.', 'heights=5', "heights=['a']", "num_ids='a'",
                                     'num_ids=-3', 'detections=0', "rpn_nms=float('nan')", "anchors='square'", "options=dict(id_loss=3)"])
def test_no_network_is_built_of_what_a_setting_cannot_be(setting):
    name = setting.partition('=')[0]
    with pytest.raises(ValueError, match=f'^{name}=|^{name} is'): systems.build_model('oim', **dict(num_ids=5) | eval(f'dict({setting})'))


def test_a_recipes_file_is_checked_like_what_is_typed(tmp_path):
    file = tmp_path / 'recipe.json'
    for text in ('', '[]', '{}', '{"train": {}}', '{"train": {"lr": "x"}}', '{"train": {"nothing": 1}}', '{"model": 3, "train": {}}', '[' * 10 ** 5, '{"train": {"milestones": ["a"]}}', '{"train": null}'):
        file.write_text(text)
        if text == '{"train": {}}': continue  # all defaults
        with pytest.raises(ValueError, match='recipe.json'): read_recipe(file)


# whatever is typed --------------------------------------------------------------------------------------------------------

NAMES = sorted({*RECIPE_KINDS, *TRAIN_KINDS, *NET_KINDS} | {f'{s}.{k}' for s in ('reid', 'cutouts', 'detector', '') for k in ('lr', 'id_loss', 'size', 'crops', 'epochs', '')})
LITERALS = st.recursive(st.none() | st.booleans() | st.integers(-2 ** 70, 2 ** 70) | st.floats() | st.text(max_size=6) | st.sampled_from([0, 1, -1, 2, 10 ** 9, 0.5, 'none', 'arm', 'imagenet', 'cpu', 'cuda']),
                        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=2), max_leaves=5)
TYPED = LITERALS.map(repr) | st.text(max_size=12) | st.sampled_from(['(' * 500, '[' * 10 ** 4, '9' * 5000, '1e400', '-0', '0x', '64x', 'x64', '__import__("os")', '{}', '()', "b'x'", '1j', '...', '{1,2}', '1_0'])


@examples(max_examples=400, suppress_health_check=list(HealthCheck))
@given(model=st.sampled_from(list_models()), preset=st.sampled_from(sorted(PRESETS)), typed=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=5), TYPED), min_size=1, max_size=3))
def test_whatever_is_typed_there_is_a_recipe_or_one_line(model, preset, typed):
    "A recipe that passes can be written to a file and read, and its network be built."
    try:
        got = dict(parse_setting(f'{k}={v}') for k, v in typed)
        if {'model', 'data', 'preset'} & got.keys(): return  # options of their own
        recipe = check_here(make_recipe(model, SPEC, preset, **got))
        assert math.isfinite(recipe.train.lr) and json.dumps(recipe.train.__dict__)
    except (ValueError, OSError) as e:
        assert '\n' not in printable(str(e)) and len(str(e)) < 4000 and str(e)


@examples(max_examples=150)
@given(name=st.sampled_from(sorted(TRAIN_KINDS)), value=LITERALS)
def test_the_trainer_checks_what_it_is_given(name, value):
    try: config = check_training(TrainConfig(**{name: value}))
    except ValueError as e: assert name in str(e) and '\n' not in str(e)
    else: assert config.total(10) >= 1 and all(math.isfinite(config.lr_at(s, 10)) for s in (0, 5, 10 ** 6))


@examples(max_examples=100)
@given(st.text(max_size=12) | st.none() | st.integers())
def test_devices(name):
    try: check_device(name)
    except ValueError as e: assert 'device=' in str(e)


# the last net ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('error', [KeyError('x'), TypeError('a\nb'), RuntimeError('a\x1b[31m'), OverflowError('too large'), RecursionError('deep'), MemoryError(), ZeroDivisionError('/'), AttributeError('a'),
                                   __import__('zipfile').BadZipFile('no zip'), UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'no'), StopIteration(), OSError(28, 'No space left', 'x')])
def test_every_error_is_one_line_and_the_traceback_is_to_be_had(error, command, tmp_path, monkeypatch):
    file = tmp_path / 'model.safetensors'
    file.write_text('x')
    def fails(*a, **kw): raise error
    monkeypatch.setattr('person_search_nb.search_commands._network', fails)
    ran = command('evaluate', file)
    assert ran.returncode == 1 and len(ran.stderr.strip().splitlines()) == 1 and ran.stderr.strip().isprintable()
    if not isinstance(error, (ValueError, OSError)): assert str(file) in ran.stderr and 'PERSON_SEARCH_TRACEBACK=1' in ran.stderr
    monkeypatch.setenv('PERSON_SEARCH_TRACEBACK', '1')
    with pytest.raises(Exception): command('evaluate', file)


def test_a_box_may_begin_outside_the_picture(command, tmp_path):
    ran = command('search', '--gallery', tmp_path, '--image', 'x.jpg', '--box', '-3,40,120,210')
    assert 'expected one argument' not in ran.stderr and 'no gallery there' in ran.stderr


@pytest.mark.parametrize('text,wanted', [('2024-05-01 12:30+02:00', 1714559400), ('2024-05-01 12:30', 1714566600), ('2024-05-01T12:30Z', 1714566600), ('90', 90), ('', None)])
def test_times_keep_their_zone(text, wanted):
    from person_search_nb.shell import seconds
    assert seconds(text) == wanted


@pytest.mark.parametrize('text', ['nan', 'inf', 'yesterday', '2024-13-01', '1e300'])
def test_what_is_no_time_is_said(text):
    from person_search_nb.shell import seconds
    with pytest.raises(ValueError, match='a time is seconds'): seconds(text)


def test_a_start_that_is_not_a_number_is_refused_before_the_folder_is_made(command, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file
    from person_search_nb.model_files import shipped_trunk
    with safe_open(str(shipped_trunk('hdl-student-fast')), 'pt') as f: about, state = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    save_file({k: v * float('nan') if v.is_floating_point() else v for k, v in state.items()}, str(tmp_path / 'nan.safetensors'), about)
    sizes = ['width=0.625', 'rpn_channels=64', 'epochs=1', f'start={tmp_path}/nan.safetensors']
    done = command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path / 'run', '--set', *sizes)
    assert done.returncode == 1 and 'is not finite' in done.stderr and 'start=' in done.stderr and not (tmp_path / 'run/checkpoint.pt').exists()


def test_an_alphabet_that_lacks_a_letter_ends_no_command(tmp_path):
    import os, subprocess, sys
    (tmp_path / 'empty').mkdir()
    code = 'import sys; sys.argv = ["person-search", "\\u4eba"]\nfrom person_search_nb.cli import main; main()'
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | dict(PYTHONIOENCODING='ascii'), capture_output=True, text=True)
    assert done.returncode == 2 and "unknown command '\\u4eba'" in done.stderr, done.stderr


@pytest.mark.parametrize('command_line', [['train'], ['index', 'pictures'], ['ablate', 'table6'], ['sweep', '--set', 'seed=0,1'], ['demo']])
def test_out_that_is_a_file(command, tmp_path, command_line):
    (tmp_path / 'file').write_text('kept')
    done = command(*command_line, '--out', tmp_path / 'file')
    assert done.returncode == 1 and 'is a file' in done.stderr and (tmp_path / 'file').read_text() == 'kept', done.stderr
