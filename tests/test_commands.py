"What a researcher types: lists of settings, systems and presets, guesses for what is mistyped, recipes of runs, and a question before hours."
import inspect
import json, os, subprocess, sys

import pytest
import torch

from person_search_nb.cli import _without_plugins, COMMANDS, EXAMPLES
from person_search_nb.models import list_models, model_settings, MODELS
from person_search_nb.preset_rules import PRESET_TEXTS, PRESETS
from person_search_nb.presets import changed, make_recipe
from person_search_nb.setting_help import estimate_time, model_table, seconds_per_scene, setting_rows
from person_search_nb.shell import command_parser

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=6&test_scenes=4&train_ids=6&test_ids=4&queries=3&gallery=3&size=96x160'
SMALL = ['width=0.125', 'start=', 'imprint=False', 'steps=2', 'warmup=0', 'batch_size=2', 'precision=fp32', 'device=cpu']


# lists -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('model', list_models())
def test_every_setting_of_every_system_is_explained(model):
    rows = {r['name']: r for r in setting_rows(model, 'tiny')}
    assert rows.keys() >= set(model_settings(model)) - {'heights'} and all(r['meaning'] and r['kind'] for r in rows.values())
    assert '\n' not in ''.join(r['meaning'] for r in rows.values()) and {r['group'] for r in rows.values()} == {'recipe', 'training', 'network'}


def test_settings_are_listed_as_they_are_typed(command):
    ran = command('settings', 'hdl-student-fast', '--preset', 'tiny')
    assert ran.returncode == 0
    lines = [line for line in ran.stdout.splitlines() if line.startswith('  ')]
    given = [line.split()[0].partition('=') for line in lines]
    assert {'lr', 'width', 'lambdas'} <= {k for k, *_ in given} and ('lr', '=', '0.002') in given
    from person_search_nb.recipe_settings import parse_setting
    again = dict(parse_setting(line.split('  ')[1].strip()) for line in lines if line.split('  ')[1].partition('=')[2] not in ('', '()', '{}'))
    again.pop('stages', None)
    assert make_recipe('hdl-student-fast', preset='tiny', **again).train == make_recipe('hdl-student-fast', preset='tiny').train
    common = command('settings').stdout
    assert 'head_padding' not in common and '  lr=0.005' in common
    assert 'give MODEL' in command('settings', '--preset', 'tiny').stderr and 'nobody' in command('settings', 'nobody').stderr


def test_systems_and_presets_in_one_line_each(command, monkeypatch):
    assert [line.split()[0] for line in command('models').stdout.splitlines()] == list_models()
    assert 'no docstring' not in model_table() and PRESET_TEXTS.keys() == PRESETS.keys()
    assert [line.split()[0] for line in command('presets').stdout.splitlines()] == list(PRESETS)
    assert command('presets', 'oim').stdout.startswith('| setting | value | source |') and 'give one' in command('presets', '--set', 'lr=1').stderr
    def mine(num_ids, heights, width, **kw): ...
    monkeypatch.setitem(MODELS, 'mine', mine)
    assert 'mine                  (its builder has no docstring)' in model_table()


# what is mistyped --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('typed,says', [(['trian'], "unknown command 'trian': did you mean train?"), (['train', '--epochs', '3'], 'settings are given as --set epochs=3'),
                                        (['distill', '--lr=0.01', 'x'], '--set lr=0.01'), (['train', '--detector.lr', '0.1'], '--set detector.lr=0.1'), (['train', '--batch-size'], '--set batch_size=VALUE'),
                                        (['train', '--preest', 'tiny'], 'no option --preest: did you mean --preset?'), (['evaluate', 'x', '--epochs', '3'], 'no option --epochs'),
                                        (['ablate', 'table6', '--width', '1', '--seeds', '0'], '--set width=1')], ids=str)
def test_a_guess_for_what_is_mistyped(typed, says, command):
    ran = command(*typed)
    assert ran.returncode == 2 and ran.stderr.strip().splitlines()[-1].endswith(says), ran.stderr


@pytest.mark.parametrize('name', COMMANDS)
def test_help_names_what_is_expected_and_ends_with_examples(name, command, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    text = command(name, '--help').stdout
    assert '(str)' not in text and '(int)' not in text and '(float)' not in text and '(default: False)' not in text
    assert text.strip().splitlines()[-3:] == ['examples:', *(f'  {e}' for e in EXAMPLES[name])] and len(EXAMPLES[name]) == 2


@pytest.mark.parametrize('name', COMMANDS)
def test_examples_parse(name):
    "Each example is a line that its command takes."
    for line in EXAMPLES[name]:
        words = line.partition(' |')[0].split()
        assert words[:2] == ['person-search', name]
        command_parser(COMMANDS[name].__wrapped__, name).parse_args(_without_plugins(words[2:])[0])


@pytest.mark.skipif(os.name == 'nt', reason='head')
def test_a_reader_that_has_seen_enough(tmp_path):
    done = subprocess.run(f'{sys.executable} -c "from person_search_nb.cli import main; main()" models | head -1', shell=True, capture_output=True, text=True)
    assert done.stdout.startswith('hdl-teacher') and not done.stderr


@pytest.mark.parametrize('name', ['train', 'distill', 'ablate', 'sweep', 'presets', 'pulls'])
def test_an_option_given_as_a_setting(name, command):
    "The option is named where the command has it, and nothing is guessed."
    first = dict(distill=['t.safetensors'], pulls=['t.safetensors'], ablate=['table6'], presets=['oim']).get(name, [])
    own = inspect.signature(COMMANDS[name].__wrapped__).parameters
    for key, value in dict(out='x', preset='tiny', model='oim', data='synth:tiny', config='x', restart='True', extend='True', yes='1', callbacks='x', seeds='1', student='x', resume='False', plugin='x.py').items():
        ran = command(name, *first, '--set', f'{key}={value}')
        assert ran.returncode == 1 and ran.stderr.count('\n') == 1 and 'did you mean re' not in ran.stderr, ran.stderr
        if key in own: assert f'{key} is not a setting; give --{key}' in ran.stderr, ran.stderr
        elif name != 'sweep' and key in ('out', 'restart', 'extend', 'config', 'callbacks'): assert f"no setting '{key}': " in ran.stderr, ran.stderr
    assert 'a broken run goes on when the same call is made again' in command('presets', 'oim', '--set', 'resume=False').stderr
    with pytest.raises(ValueError, match='did you mean batch_size'): changed(make_recipe(), batch=3)


# a recipe from a file ----------------------------------------------------------------------------------------------------

def test_a_run_is_made_again_from_its_recipe(command, tmp_path):
    a, b, c = (tmp_path / n for n in 'abc')
    assert command('train', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', a, '--set', *SMALL).returncode == 0
    ran = command('train', '--config', a / 'recipe.json', '--out', b)
    assert ran.returncode == 0, ran.stderr
    assert (a / 'recipe.json').read_bytes() == (b / 'recipe.json').read_bytes() and (a / 'model.safetensors').read_bytes() == (b / 'model.safetensors').read_bytes()
    assert command('train', '--config', a, '--out', c, '--set', 'lr=0.1', 'rpn.lr=0.01').returncode == 0
    first, third = (json.loads((f / 'recipe.json').read_text()) for f in (a, c))
    assert third['train']['lr'] == 0.1 and third['train']['parts'] == {'rpn': {'lr': 0.01}}
    third['train'] |= {k: first['train'][k] for k in ('lr', 'parts')}
    assert first == third
    for words, says in ((['--preset', 'tiny'], 'recipe.json and --preset tiny both say every setting'), (['--model', 'oim'], 'is of hdl-student-fast, --model says oim'),
                        (['--set', 'epoch=3'], "no setting 'epoch'"), (['--set', 'foo.lr=3'], "'foo' is no stage and no part")):
        ran = command('train', '--config', a, '--out', tmp_path / 'x', *words)
        assert ran.returncode == 1 and says in ran.stderr and len(ran.stderr.strip().splitlines()) == 1 and not (tmp_path / 'x').exists()
    assert 'nowhere' in command('train', '--config', tmp_path / 'nowhere.json').stderr
    ran = command('distill', a / 'model.safetensors', '--config', a, '--out', tmp_path / 'd')
    assert ran.returncode == 0 and json.loads((tmp_path / 'd/recipe.json').read_text())['teacher'] == str(a / 'model.safetensors')


def test_other_data_have_other_heights():
    recipe = make_recipe('hdl-student-fast', SPEC, 'tiny', heights=(20., 40.))
    assert changed(recipe, lr=.1).net['heights'] == (20., 40.) and 'heights' not in changed(recipe, data='synth:small').net
    with pytest.raises(ValueError, match=r'trunk decides what the stages \(detector\) are, so it is given where they are made'): changed(make_recipe('clsa'), trunk='vgg16')


# a question before hours -------------------------------------------------------------------------------------------------

@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr('person_search_nb.setting_help.seconds_per_scene', lambda recipe, guides: 20.)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('WORLD_SIZE', raising=False)


LONG = ['--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--set', *(s for s in SMALL if s != 'steps=2'), 'steps=200']

def test_hours_without_a_gpu_are_asked_for(command, tmp_path, slow):
    ran = command('train', '--out', tmp_path / 'a/b', *LONG)
    assert ran.returncode == 1 and 'about 2 hours (400 scenes of 20 s' in ran.stderr and '--yes' in ran.stderr and not (tmp_path / 'a').exists()
    assert len(ran.stderr.strip().splitlines()) == 1


def test_who_is_not_asked(command, tmp_path, slow, monkeypatch):
    from person_search_nb.model_commands import ask_first
    from person_search_nb.runs import CHECKPOINT
    from person_search_nb.shell import typed
    recipe, began = make_recipe('hdl-student-fast', SPEC, 'tiny', steps=200), []
    ask_first([recipe])  # from Python
    monkeypatch.setattr('person_search_nb.recipes.run_recipe', lambda recipe, *a, **kw: (began.append(recipe), (None, []))[1])
    assert command('train', '--yes', '--out', tmp_path / 'a', *LONG).returncode == 0 and len(began) == 1
    with typed():
        with pytest.raises(ValueError, match='--yes'): ask_first([recipe])
        ask_first([make_recipe('hdl-student-fast', SPEC, 'tiny', steps=20)])  # few scenes
        monkeypatch.setenv('WORLD_SIZE', '2')
        ask_first([recipe])
    monkeypatch.delenv('WORLD_SIZE')
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / CHECKPOINT).touch()
    assert command('train', '--out', tmp_path / 'b', *LONG).returncode == 0 and len(began) == 2  # goes on
    assert '--yes' in command('train', '--restart', '--out', tmp_path / 'b', *LONG).stderr


def test_a_table_of_hours_is_asked_for(command, tmp_path, slow, monkeypatch):
    "With its teachers, which are still to be trained, and without what is trained already."
    call = ['ablate', 'table7', '--data', SPEC, '--out', tmp_path / 'table', '--networks', tmp_path / 'networks', '--set', *(s for s in SMALL if s != 'steps=2')]
    ran = command(*call, 'steps=200', '--preset', 'fast')
    assert ran.returncode == 1 and ran.stderr.count('\n') == 1 and 'take --preset tiny, fewer epochs or seeds, or --yes' in ran.stderr and not (tmp_path / 'table').exists()
    ran = command(*call, 'steps=200')
    assert 'scenes of 20 s' in ran.stderr and 'take fewer epochs or seeds, or --yes' in ran.stderr
    began = []
    monkeypatch.setattr('person_search_nb.ablations.run_ablation', lambda *a, **kw: began.append(a))
    monkeypatch.setattr('person_search_nb.ablations.ablation_table', str)
    assert command(*call, 'steps=200', '--yes').returncode == command(*call, 'steps=2').returncode == 0 and len(began) == 2
    from person_search_nb.ablations import untrained
    every = untrained('table7', SPEC, networks=tmp_path / 'networks')
    from person_search_nb.runs import CHECKPOINT
    every[0].folder.mkdir(parents=True)
    (every[0].folder / CHECKPOINT).touch()
    assert untrained('table7', SPEC, networks=tmp_path / 'networks') == every[1:]


def test_a_teacher_that_is_still_to_be_trained_can_be_timed(tmp_path):
    recipe = make_recipe('hdl-student-fast', SPEC, 'tiny', width=.125, start='', steps=60, teacher=str(tmp_path / 'none.safetensors'))
    guide = make_recipe('hdl-teacher', SPEC, 'tiny', width=.125, start='')
    found = estimate_time(recipe, changed(recipe, seed=1), guides={recipe.teacher: guide})
    assert found.seconds > 0 and found.passes == 2 * 60 * recipe.train.batch_size


# several runs ------------------------------------------------------------------------------------------------------------

def test_a_sweep_through_the_shell(command, tmp_path):
    "It says what it takes, makes every combination, and goes on where it was, with more values, too."
    call = ['sweep', '--model', 'hdl-student-fast', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path / 's', '--set', *SMALL[:3], *SMALL[4:], 'rois_per_image=4', 'proposals=(12,8)', 'steps=1']
    ran = command(*call, 'lr=0.001,0.003', 'milestones=1,2', 'milestones=3,')
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f'4 runs: lr=0.001, 0.003; milestones=(1, 2), (3,)\n1 steps each, 4 in all; in {tmp_path / "s"}\n'), ran.stdout
    names = ['lr=0.001,milestones=1x2', 'lr=0.001,milestones=3', 'lr=0.003,milestones=1x2', 'lr=0.003,milestones=3']
    assert [line.split(' | ')[0].strip('| ') for line in ran.stdout.splitlines() if line.startswith('| lr=')] == names
    times = [(tmp_path / 's' / n / 'model.safetensors').stat().st_mtime_ns for n in names]
    more = command(*call, 'lr=0.001,0.003,0.1', 'milestones=1,2', 'milestones=3,')
    assert '6 runs' in more.stdout and ', 4 finished' in more.stdout and times == [(tmp_path / 's' / n / 'model.safetensors').stat().st_mtime_ns for n in names]
    again = command('sweep', '--config', tmp_path / 's' / names[0], '--out', tmp_path / 't', '--set', 'seed=1,2', 'lr=0.2')
    assert again.returncode == 0 and sorted(p.name for p in (tmp_path / 't').iterdir()) == ['seed=1', 'seed=2'], again.stderr
    assert json.loads((tmp_path / 't/seed=1/recipe.json').read_text())['train']['lr'] == .2


@pytest.mark.parametrize('words,says', [(['lr=0.1'], 'every setting has one value'), ([], 'every setting has one value'), (['lr=0.1,-1'], 'lr=-1'), (['lrr=1,2'], "no setting 'lrr': did you mean lr?"),
                                        (['seed=1,1'], 'give each value once'), (['seed'], 'key=value'), (['out=1,2'], 'out is not a setting; give --out 1,2'), (['trunk=resnet1,resnet2'], 'trunk')])
def test_a_sweep_that_cannot_be(words, says, command, tmp_path):
    ran = command('sweep', '--data', SPEC, '--preset', 'tiny', '--out', tmp_path / 's', '--set', *words)
    assert ran.returncode == 1 and says in ran.stderr and ran.stderr.count('\n') == 1 and not (tmp_path / 's').exists(), ran.stderr


def test_the_wrong_kind_of_path_is_named(command, tmp_path):
    ran = command('train', '--config', tmp_path / 'nope')
    assert ran.returncode == 1 and 'nope: no such file; --config wants the folder of a run, or its recipe.json' in ran.stderr
    ran = command('evaluate', tmp_path)
    assert ran.returncode == 1 and f'is a folder; give a model file, such as {tmp_path}/model.safetensors' in ran.stderr


def test_a_sweep_of_hours_is_asked_for(command, tmp_path, slow, monkeypatch):
    began = []
    monkeypatch.setattr('person_search_nb.training_runs.finish_recipe', lambda *a, **kw: began.append(a))
    call = ['sweep', '--out', tmp_path / 's', *LONG[:-1], 'steps=60', 'seed=0,1']  # an hour together
    ran = command(*call)
    assert ran.returncode == 1 and '240 scenes of 20 s' in ran.stderr and 'fewer epochs or values, or --yes' in ran.stderr and not began and not (tmp_path / 's').exists()
    assert 'no such folder' in command(*call, '--yes').stderr and len(began) == 2


@pytest.mark.parametrize('model', list_models())
def test_a_scene_of_every_system_can_be_timed(model):
    from person_search_nb.presets import stage_recipes
    before = torch.random.get_rng_state()
    for _, r in stage_recipes(make_recipe(model, SPEC, 'tiny', start='', width=.125)):
        if not r.crops: assert 0 < seconds_per_scene(r) < 60
    assert torch.equal(before, torch.random.get_rng_state())
    assert estimate_time(make_recipe(model, SPEC, 'tiny', steps=2)).seconds == 0


# what was met on the way -------------------------------------------------------------------------------------------------

def test_start_imagenet_where_there_is_none(command, tmp_path):
    ran = command('train', '--model', 'hdl-student', '--data', SPEC, '--out', tmp_path / 'x', '--set', 'start=imagenet')
    assert ran.returncode == 1 and 'hdl-student has no ImageNet weights' in ran.stderr and not (tmp_path / 'x').exists()


def test_words_for_a_query(command, tmp_path):
    "A query is no row of an annotation file."
    assert command('make-data', SPEC, tmp_path / 'd', '--layout', 'prw', '--workers', 1).returncode == 0
    shot = sorted((tmp_path / 'd/frames').glob('*.jpg'))[0]
    assert command('index', shot.parent, '--out', tmp_path / 'g', '--device', 'cpu').returncode == 0
    asked = ['search', '--gallery', tmp_path / 'g', '--device', 'cpu', '--number', 30, '--image']
    ran = command(*asked, shot, '--box', '900,900,990,990')
    assert 'give left, top, right, bottom in pixels of this picture, of 160 x 96 px' in ran.stderr and 'row' not in ran.stderr
    ran = command(*asked, tmp_path / 'no.jpg', '--box', '1,1,9,9')
    assert '--image is a file, or the name of a scene in the gallery' in ran.stderr and 'annotation' not in ran.stderr
    copy = tmp_path / 'copy.jpg'  # under any name
    copy.write_bytes(shot.read_bytes())
    box = ['--box', '10,10,60,90']
    assert shot.name in command(*asked, copy, *box).stdout and shot.name not in command(*asked, copy, *box, '--skip-own').stdout
    assert '--skip-own: only for a search by a picture' in command('search', 'shipped:hdl-student-fast', '--skip-own').stderr


@pytest.mark.parametrize('name', ['train', 'distill', 'evaluate', 'index'])
def test_no_option_is_the_beginning_of_one_of_torchruns(name):
    "The launcher reads the whole line, and refuses a word that could be short for several options of its own."
    from torch.distributed.run import get_args_parser
    theirs = [o for a in get_args_parser()._actions for o in a.option_strings]
    own = ['--plugin', *(f"--{k.replace('_', '-')}" for k in inspect.signature(COMMANDS[name].__wrapped__).parameters)]
    assert not [o for o in own if sum(t.startswith(o) for t in theirs) > 1]
