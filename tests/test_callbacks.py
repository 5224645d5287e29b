"Callbacks look on: they are told everything in its order, change no number, and end a training only by asking for it."
import json
import os
import random
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from person_search_nb import callbacks as module
from person_search_nb.callbacks import as_callbacks, Callback, EarlyStopping, list_callbacks, MLflow, register_callback, TensorBoard, Trackio, WandB
from person_search_nb.checkpoints import load_tree
from person_search_nb.datasets import open_dataset
from person_search_nb.distributed import spawn
from person_search_nb.files import MissingPackage
from person_search_nb.models import build_model, load_model
from person_search_nb.presets import make_recipe
from person_search_nb.recipes import run_recipe
from person_search_nb.runs import CHECKPOINT, read_log, RunLog
from person_search_nb.settings import TrainConfig
from person_search_nb.training import train

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=4&test_scenes=4&train_ids=6&test_ids=4&queries=3&gallery=3&size=64x112'
HEIGHTS = [14., 20, 28, 36, 44, 52, 62, 74, 88, 104, 124]
SMALL = dict(width=0.125, rpn_channels=16, start='', imprint=False, steps=2, warmup=0, device='cpu', precision='fp32', batch_size=2, rois_per_image=4, proposals=(12, 8), augment=None)


def scenes(): return open_dataset(SPEC, 'train', progress=False)


def small(seed=0):
    torch.manual_seed(seed)
    return build_model('hdl-student-fast', 6, heights=HEIGHTS, width=0.125, rpn_channels=16, rois_per_image=4, proposals=(12, 8))


def config(**kw): return TrainConfig(**dict(epochs=3, batch_size=2, lr=0.01, warmup=2, precision='fp32', device='cpu', evaluate_every=1, checkpoint_every=3) | kw)


def learn(out=None, model=None, **kw):
    "A training of six steps with an evaluation every two -> (losses, weights)."
    model = model or small()
    more = {k: kw.pop(k) for k in list(kw) if k in TrainConfig.__dataclass_fields__}
    history = train(model, scenes(), config(**more), out, progress=False, **dict(evaluate=lambda m: dict(mAP=0.5)) | kw)
    return [h['loss'] for h in history], {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b): return a[0] == b[0] and all(torch.equal(v, b[1][k]) for k, v in a[1].items())


class Recorder(Callback):
    "What it was told, in a list, and in a file, which is still there after a kill."
    def __init__(self, file=None, at=None): self.told, self.file, self.at = [], file, at

    def note(self, *what):
        self.told.append(what)
        if self.file:
            with open(self.file, 'a') as f: print(*what, file=f)

    def start(self, run): self.note('start', run.done)
    def step(self, run, row):
        self.note('step', row['step'])
        if run.done == self.at: os.kill(os.getpid(), 9)
    def scores(self, run, row): self.note('scores', row['step'])
    def checkpoint(self, run, path): self.note('checkpoint', load_tree(path)['step'])
    def end(self, run, reason): self.note(reason, run.done)


class Interrupting(nn.Module):
    def __init__(self, model, at, error): super().__init__(); self.student, self.left, self.error = model, at, error
    def forward(self, images, targets):
        self.left -= 1
        if self.left < 0: raise self.error
        return self.student(images, targets)


def rising(*values):
    "An evaluation that gives these scores, one after the other, the last one for ever."
    left = list(values)
    return lambda model: dict(mAP=left.pop(0) if len(left) > 1 else left[0], others={})


@pytest.fixture(scope='module')
def plain(): return learn()


# what is told ---------------------------------------------------------------------------------------------------------

def learn_until_killed(out, told): learn(out, callbacks=[Recorder(told, 5)])


def test_all_events_in_order_killed_and_resumed(tmp_path, plain, child):
    run = child(learn_until_killed, tmp_path / 'run', tmp_path / 'told')
    run.join()
    assert run.exitcode == -9
    assert (tmp_path / 'told').read_text().splitlines() == ['start 0', 'checkpoint 0', 'step 0', 'step 1', 'scores 2', 'step 2', 'checkpoint 3', 'step 3', 'scores 4', 'step 4']
    recorder = Recorder()
    assert same(learn(tmp_path / 'run', small(9), callbacks=[recorder]), plain)
    assert recorder.told == [('start', 3), ('step', 3), ('scores', 4), ('step', 4), ('step', 5), ('scores', 6), ('checkpoint', 6), ('done', 6)]
    assert json.loads((tmp_path / 'run/scores.json').read_text()) == [dict(step=k, mAP=0.5) for k in (2, 4, 6)]
    again = Recorder()
    learn(tmp_path / 'run', callbacks=[again])                                   # finished: nothing is computed
    assert again.told == [('start', 6), ('done', 6)]


@pytest.mark.parametrize('error,reason', [(KeyboardInterrupt(), 'stopped'), (RuntimeError('burst'), 'failed')])
def test_the_end_is_told_whatever_it_is(tmp_path, error, reason):
    recorder = Recorder()
    with pytest.raises(type(error)): learn(tmp_path, Interrupting(small(), 2, error), callbacks=[recorder])
    assert recorder.told[-1] == (reason, 2) and [t[0] for t in recorder.told].count('start') == 1
    with pytest.raises(ValueError, match='weights name'): learn(tmp_path / 'new', weights={'nose': 1.}, callbacks=[recorder])
    assert recorder.told[-3:] == [('start', 0), ('checkpoint', 0), ('failed', 0)] and not (tmp_path / 'new').exists()


def test_the_model_is_there_when_the_end_is_told(tmp_path):
    seen = []
    class Copies(Callback):
        def scores(self, run, row): seen.append((run.folder / 'best.safetensors').exists())
        def end(self, run, reason): seen.append(bool(load_model(run.folder / 'model.safetensors')))
    learn(tmp_path, callbacks=Copies)
    assert seen == [True] * 4


def test_what_a_run_shows(tmp_path):
    seen = {}
    class Look(Callback):
        def step(self, run, row):
            if run.done == 3:
                seen.update(folder=run.folder, label=run.label, steps=run.steps, per_epoch=run.steps_per_epoch, lr=run.config.lr, history=len(run.history), tail=[r['step'] for r in run.history[-2:]],
                            row=row == run.history[-1], scores=list(run.scores), record=run.record['recipe'], extended=run.extended_at)
    learn(tmp_path, callbacks=[Look()], label='mine', record=dict(recipe=dict(model='x')))
    assert seen == dict(folder=tmp_path, label='mine', steps=6, per_epoch=2, lr=0.01, history=3, tail=[1, 2], row=True, scores=[dict(step=2, mAP=0.5)], record=dict(model='x'), extended=0)


def test_a_function_of_a_row_a_name_and_what_is_none():
    rows = []
    losses, _ = learn(callbacks=rows.append)
    assert [r['loss'] for r in rows] == losses and [r['step'] for r in rows] == list(range(6))
    assert {'tensorboard', 'wandb', 'mlflow', 'trackio'} <= set(list_callbacks())
    with pytest.raises(ValueError, match="unknown callback 'wanb': choose one of .*wandb"): learn(callbacks=['wanb'])
    for none in (3, int, [None]):
        with pytest.raises(ValueError, match='is no callback; give a Callback'): as_callbacks([none])


# what it cannot do ----------------------------------------------------------------------------------------------------

class Careless(Callback):
    "Draws, seeds, switches gradients off, and changes what it is given, in every event."
    def do(self, run, row={}):
        random.random(), np.random.rand(), torch.rand(9)
        random.seed(1); np.random.seed(1); torch.manual_seed(1)
        torch.set_grad_enabled(False)
        if row: row['loss'] = row['mAP'] = 0.
        if run.history: run.history[0]['loss'] = 0.
        run.config.lr, run.record['network'] = 9., {}
        for name in ('steps', 'done', 'history', 'folder', 'config', 'any'):
            with pytest.raises(AttributeError, match='looks on and changes nothing'): setattr(run, name, 0)
    def start(self, run): self.do(run)
    def step(self, run, row): self.do(run, row)
    def scores(self, run, row): self.do(run, row)
    def checkpoint(self, run, path): self.do(run)
    def end(self, run, reason): self.do(run)


class Drawing(nn.Module):
    "Losses of which a part is drawn by each generator."
    def __init__(self, model): super().__init__(); self.student, self.config = model, model.config
    def forward(self, images, targets):
        losses = self.student(images, targets)
        return losses | dict(id=losses['id'] * (1 + random.random() + np.random.rand() + torch.rand(()) / 2))


def drawn(**kw):
    random.seed(3); np.random.seed(3)
    return learn(model=Drawing(small()), **kw)


def test_no_number_depends_on_callbacks(tmp_path, capsys):
    whole = drawn()
    assert same(drawn(out=tmp_path, callbacks=[Careless(), Recorder(), EarlyStopping(patience=9)]), whole)
    assert torch.is_grad_enabled() and 'callback' not in capsys.readouterr().out          # none of them failed
    assert json.loads((tmp_path / 'scores.json').read_text())[-1] == dict(step=6, mAP=0.5) and load_tree(tmp_path / CHECKPOINT)['config']['lr'] == 0.01
    assert [r['loss'] for r in read_log(tmp_path / 'log.csv')] == whole[0]


@pytest.mark.parametrize('event', ['start', 'step', 'scores', 'checkpoint', 'end'])
def test_an_error_is_printed_once_and_the_training_goes_on(event, tmp_path, plain, capsys):
    def fail(self, *args): raise KeyError(f'nothing\nhere in {event}')
    kind, recorder = type('Fails', (Callback,), {event: fail}), Recorder()
    assert same(learn(tmp_path, callbacks=[kind(), recorder]), plain)
    out = capsys.readouterr().out
    assert out.count('callback Fails: KeyError in ' + event) == 1 and 'the training goes on without this callback' in out and len(out.splitlines()) == 1
    assert [t[0] for t in recorder.told].count('step') == 6 and recorder.told[-1] == ('done', 6)


def test_ctrl_c_in_a_callback_is_no_error(tmp_path, plain):
    def stop(row):
        if row['step'] == 3: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learn(tmp_path, callbacks=stop)
    assert same(learn(tmp_path, small(5)), plain)


@pytest.mark.parametrize('event', ['step', 'scores'])
def test_errors_of_what_resuming_stands_on_are_raised(event, tmp_path, monkeypatch):
    def fail(self, run, row): raise OSError(28, 'No space left on device')
    recorder = Recorder()
    monkeypatch.setattr(RunLog, event, fail)
    with pytest.raises(OSError, match='No space left'): learn(tmp_path, callbacks=[recorder])
    assert recorder.told[-1][0] == 'failed'


# stopping -------------------------------------------------------------------------------------------------------------

def test_early_stopping_and_calling_again(tmp_path, capsys):
    run = lambda out='run', scores=(.1, .3, .3, .2), patience=2, **kw: learn(tmp_path / out, small(), epochs=9, evaluate=rising(*scores), callbacks=[recorder := Recorder(), EarlyStopping(patience)], **kw) + (recorder,)
    losses, _, recorder = run()
    assert len(losses) == 8 and recorder.told[-3:] == [('scores', 8), ('checkpoint', 8), ('stopped', 8)]
    assert load_model(tmp_path / 'run/model.safetensors') and 'mAP has not risen above 0.3 in 2 evaluations' == load_tree(tmp_path / 'run' / CHECKPOINT)['stopped']
    again, _, recorder = run()                                                   # the same call does not train on
    assert again == losses and recorder.told == [('start', 8), ('stopped', 8)]
    train(small(), scenes(), config(epochs=9), tmp_path / 'run', evaluate=rising(.2))
    assert 'stopped after step 8 of 18: mAP has not risen above 0.3 in 2 evaluations; extend=True trains on' in capsys.readouterr().out
    on, _, recorder = run(scores=[.2], extend=True)                              # two more evaluations, counted from here
    assert len(on) == 12 and on[:8] == losses and recorder.told[-1] == ('stopped', 12)
    assert load_tree(tmp_path / 'run' / CHECKPOINT)['extended_at'] == 8
    begun, _, _ = run(restart=True)
    assert begun == losses
    whole = learn(tmp_path / 'whole', epochs=9)[0]
    assert on == whole[:12]


def test_a_resumed_run_stops_where_an_unbroken_one_does(tmp_path, plain):
    scores = (.1, .3, .3, .2, .2, .2, .2)
    stop = lambda: [EarlyStopping(3)]
    unbroken = learn(epochs=9, evaluate=rising(*scores), callbacks=stop())
    with pytest.raises(KeyboardInterrupt): learn(tmp_path, Interrupting(small(), 7, KeyboardInterrupt()), epochs=9, evaluate=rising(*scores), callbacks=stop())
    assert same(learn(tmp_path, small(4), epochs=9, evaluate=rising(*scores[3:]), callbacks=stop()), unbroken) and len(unbroken[0]) == 10


def test_a_step_can_stop_the_run_and_it_is_evaluated(tmp_path):
    class Budget(Callback):
        def step(self, run, row):
            if run.done == 2: run.stop('enough'); run.stop('and again')
        def end(self, run, reason): self.reason = reason, run.stopped
    budget = Budget()
    losses, _ = learn(tmp_path, evaluate_every=0., callbacks=budget)
    assert len(losses) == 3 and budget.reason == ('stopped', 'enough')            # it travels with the losses of the next step
    assert [s['step'] for s in json.loads((tmp_path / 'scores.json').read_text())] == [3] and load_tree(tmp_path / CHECKPOINT)['stopped'] == 'enough'


def test_early_stopping_says_what_is_wrong(capsys):
    with pytest.raises(ValueError, match='at least one evaluation'): EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="there is no score 'top1'; there are mAP"): learn(callbacks=EarlyStopping(score='top1'))
    for settings, score, says in ((dict(evaluate_every=0.), 'mAP', 'evaluate_every=0 evaluates only at the end'), ({}, 'mAPP', "no score 'mAPP': did you mean mAP")):
        rows = []
        with pytest.raises(ValueError, match=says): learn(callbacks=[rows.append, EarlyStopping(score=score)], record=dict(recipe={}), **settings)
        assert not rows  # before the first step


def test_a_mistyped_event_is_named():
    class Typing(Callback):
        def stepp(self, run, row): pass
    class Helped(Callback):
        def step(self, run, row): self.log(row)
        def log(self, row): pass
    for use in (as_callbacks, register_callback('typing')):
        with pytest.raises(ValueError, match=r'Typing.stepp: no such event; did you mean step\?'): use(Typing)
    assert 'typing' not in list_callbacks() and len(as_callbacks(Helped)) == 1


def test_any_number_can_say_what_is_best(tmp_path):
    learn(tmp_path, evaluate=lambda m: dict(recall=0.5, other=3), best='recall')
    assert json.loads((tmp_path / 'scores.json').read_text())[-1] == dict(step=6, recall=0.5, other=3) and (tmp_path / 'best.safetensors').exists() and (tmp_path / 'curves.png').exists()
    with pytest.raises(ValueError, match="a number 'mAP', by which the best model is kept; it returned recall, other: name one of them by best="):
        learn(evaluate=lambda m: dict(recall=0.5, other=3))


def in_processes(out):
    made = config(epochs=9, norm='shared')
    def call():
        recorder = Recorder()
        history = train(small(), scenes(), made, out, progress=False, evaluate=rising(.1, .3, .3, .2), callbacks=[recorder, EarlyStopping(2)])
        return len(history), recorder.told
    class Stop(Callback):
        def step(self, run, row):
            if run.done == 2: run.stop('enough')
    return call(), call(), len(train(small(), scenes(), made, progress=False, callbacks=Stop()))


def test_two_processes(tmp_path):
    first, second = spawn(in_processes, 2, tmp_path)
    assert first[0][0] == second[0][0] == 8 and first[2] == second[2] == 3       # both stop after the same step
    assert first[0][1][0] == ('start', 0) and first[0][1][-1] == ('stopped', 8) and second[0][1] == []
    assert first[1] == (8, [('start', 8), ('stopped', 8)]) and second[1] == (0, [])  # the history of earlier calls is the first one's


# trackers -------------------------------------------------------------------------------------------------------------

class StandIn:
    "The calls of a tracker's package, with the signatures that are used of it."
    def __init__(self, **answers): self.calls, self.answers = [], answers
    def __getattr__(self, name):
        if name.startswith('__') or name in ('id', 'name', 'info'): raise AttributeError(name)
        def call(*args, **kw):
            self.calls.append((name, args, kw))
            return self.answers.get(name)
        return call
    def named(self, name): return [(a, k) for n, a, k in self.calls if n == name]


def interrupted(out, callback):
    "Three steps, an interruption, and the rest."
    with pytest.raises(KeyboardInterrupt): learn(out, Interrupting(small(), 4, KeyboardInterrupt()), callbacks=callback(), record=dict(recipe=dict(model='x', size=[64, 112])))
    return learn(out, Interrupting(small(), 99, KeyboardInterrupt()), callbacks=callback(), record=dict(recipe=dict(model='x', size=[64, 112])))


def test_wandb(tmp_path, monkeypatch, capsys):
    fake = StandIn()
    tracked = StandIn()
    tracked.id, fake.answers['init'] = 'k3', tracked
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    losses, _ = interrupted(tmp_path / 'a/b', lambda: WandB('people', every=2, tags=['t']))
    (_, first), (_, second) = fake.named('init')
    assert first['project'] == 'people' and first['tags'] == ['t'] and first['name'] == 'a/b' and 'id' not in first and second['id'] == 'k3' and second['resume'] == 'allow'
    assert first['config'] | dict(lr=0.01) == first['config'] and first['config']['recipe.model'] == 'x' and first['config']['recipe.size'] == [64, 112] and first['config']['data.scenes'] == 4
    logged = [(k['step'], a[0]) for a, k in tracked.named('log')]
    assert [s for s, _ in logged] == [0, 2, 2, 4] + [4, 4, 6]                    # scores of step 2 before the row of step 2; then from the checkpoint after step 3
    assert logged[1][1] == {'scores/mAP': 0.5} and logged[0][1]['loss'] == losses[0] and 'step' not in logged[0][1]
    assert tracked.named('finish') == [((), dict(exit_code=0))] * 2
    monkeypatch.setenv('WANDB_PROJECT', 'of-the-shell')
    assert as_callbacks('wandb')[0].kw == dict(project='of-the-shell')
    with pytest.raises(RuntimeError): learn(None, Interrupting(small(), 2, RuntimeError()), callbacks='wandb')
    assert tracked.named('finish')[-1] == ((), dict(exit_code=1)) and fake.named('init')[-1][1]['name'] == 'train' and 'callback' not in capsys.readouterr().out


def test_mlflow(tmp_path, monkeypatch, capsys):
    fake = StandIn(start_run=SimpleNamespace(info=SimpleNamespace(run_id='r7')))
    monkeypatch.setitem(sys.modules, 'mlflow', fake)
    interrupted(tmp_path / 'a/b', lambda: MLflow('people', every=3, nested=True))
    assert fake.named('start_run') == [((), dict(run_name='a/b', nested=True)), ((), dict(run_id='r7', nested=True))] and fake.named('set_experiment') == [(('people',), {})] * 2
    assert len(fake.named('log_params')) == 1 and fake.named('log_params')[0][0][0]['recipe.model'] == 'x'
    assert [k['step'] for _, k in fake.named('log_metrics')] == [0, 2, 3, 4] + [3, 4, 6]
    assert [a for a, _ in fake.named('end_run')] == [('KILLED',), ('FINISHED',)]
    learn(tmp_path / 'c', evaluate=rising(.1), callbacks=['mlflow', EarlyStopping(1)])
    with pytest.raises(RuntimeError): learn(None, Interrupting(small(), 1, RuntimeError()), callbacks='mlflow')
    assert [a for a, _ in fake.named('end_run')][2:] == [('FINISHED',), ('FAILED',)] and 'callback' not in capsys.readouterr().out


def test_trackio(tmp_path, monkeypatch, capsys):
    fake = StandIn(init=SimpleNamespace(name='calm-sea-1'))
    monkeypatch.setitem(sys.modules, 'trackio', fake)
    interrupted(tmp_path / 'a/b', lambda: Trackio(every=3, space_id='me/s'))
    (_, first), (_, second) = fake.named('init')
    assert first | dict(project='person-search', name='a/b', resume='never', space_id='me/s') == first and second | dict(name='calm-sea-1', resume='allow') == second
    assert [k['step'] for _, k in fake.named('log')] == [0, 2, 3, 4] + [3, 4, 6] and fake.named('finish') == [((), {})] * 2 and 'callback' not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['wandb', 'mlflow', 'trackio', 'tensorboard'])
def test_a_package_that_is_missing_is_named_before_anything_is_done(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=f'needs the package {name}: pip install {name}'): learn(tmp_path / 'out', callbacks=[name])
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='every=0'): monkeypatch.setitem(sys.modules, name, StandIn()); module.CALLBACKS[name](every=0)


def test_tensorboard_is_there_once(tmp_path, capsys):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    for k, given in enumerate([(), 'tensorboard', TensorBoard(every=2)]):
        learn(tmp_path / str(k), callbacks=given)
        board = events.EventAccumulator(str(tmp_path / str(k) / 'tensorboard')).Reload()
        assert [e.step for e in board.Scalars('loss')] == [list(range(6)), list(range(6)), [0, 2, 4]][k] and [e.step for e in board.Scalars('scores/mAP')] == [2, 4, 6]
    assert capsys.readouterr().out == ''
    learn(callbacks='tensorboard')
    assert 'the run has no folder to write in; give out=' in capsys.readouterr().out


# recipes and the shell ------------------------------------------------------------------------------------------------

def test_stages_are_trainings_of_their_own(tmp_path):
    told = []
    class Labels(Callback):
        def start(self, run): told.append((run.label, run.folder.name, 'start'))
        def step(self, run, row): told.append((run.label, run.folder.name, 'step'))
        def end(self, run, reason): told.append((run.label, run.folder.name, reason))
    run_recipe(make_recipe('e2e-rss', SPEC, 'tiny', **SMALL | {'cutouts.crops': (64, 48), 'cutouts.batch_size': 4}), tmp_path / 'run', progress=False, callbacks=Labels)
    first, last = ('e2e-rss cutouts', '1-cutouts'), ('e2e-rss', 'run')
    assert list(dict.fromkeys(told)) == [(*s, e) for s in (first, last) for e in ('start', 'step', 'done')]
    with pytest.raises(ValueError, match="unknown callback 'nobody'"): run_recipe(make_recipe('oim', SPEC, 'tiny', **SMALL), tmp_path / 'other', callbacks='nobody')
    assert not (tmp_path / 'other').exists()


def test_through_the_shell(tmp_path, monkeypatch, command, registries):
    fake, tracked, rows = StandIn(), StandIn(), []
    tracked.id, fake.answers['init'] = 'k3', tracked
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    register_callback('rows')(lambda row: rows.append(row['step']))
    words = ['--data', SPEC, '--preset', 'tiny', '--set', *(f'{k}={v}' for k, v in SMALL.items())]
    ran = command('train', '--model', 'hdl-student-fast', '--out', tmp_path / 'run', '--callbacks', 'wandb, rows', *words)
    assert ran.returncode == 0, ran.stderr
    assert rows == [0, 1] and fake.named('init')[0][1]['config']['recipe.model'] == 'hdl-student-fast'
    assert [sorted(a[0])[0] for a, _ in tracked.named('log')] == ['head_box', 'scores/det_ap'] and len(tracked.named('finish')) == 1
    ran = command('distill', tmp_path / 'run/model.safetensors', '--model', 'hdl-student-fast', '--out', tmp_path / 'two', '--callbacks', 'rows', *words)
    assert ran.returncode == 0 and rows == [0, 1, 0, 1], ran.stderr
    ran = command('train', '--model', 'oim', '--out', tmp_path / 'no', '--callbacks', 'wanb', *words)
    assert ran.returncode == 1 and "unknown callback 'wanb': choose one of wandb, tensorboard, mlflow, trackio" in ran.stderr and 'Traceback' not in ran.stderr and not (tmp_path / 'no').exists()


# a stage that was stopped ---------------------------------------------------------------------------------------------

STAGED = SMALL | dict(steps=4) | {'cutouts.crops': (64, 48), 'cutouts.batch_size': 4}


class StopFirst(Callback):
    "Stops the first stage after two steps."
    def step(self, run, row):
        if run.label == 'e2e-rss cutouts' and run.done == 1: run.stop('enough')


class CtrlC(Callback):
    "In the third step."
    def step(self, run, row):
        if run.done == 3: raise KeyboardInterrupt


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    "Both stages as long as the recipe says: the losses of each."
    out = tmp_path_factory.mktemp('unbroken') / 'run'
    run_recipe(make_recipe('e2e-rss', SPEC, 'tiny', **STAGED), out, progress=False)
    return stage_losses(out)


def stage_losses(out): return [[r['loss'] for r in read_log(f / 'log.csv')] for f in (out / '1-cutouts', out)]


def test_extend_trains_a_stopped_stage_on_and_begins_the_next_again(tmp_path, unbroken, capsys):
    out, recipe = tmp_path / 'run', make_recipe('e2e-rss', SPEC, 'tiny', **STAGED)
    run_recipe(recipe, out, progress=False, callbacks=StopFirst())
    before = stage_losses(out)
    assert before[0] == unbroken[0][:2] and len(before[1]) == 4 and before[1] != unbroken[1]
    run_recipe(recipe, out, progress=False)  # without extend it stays as it was stopped
    assert stage_losses(out) == before
    kept = make_recipe('e2e-rss', SPEC, 'tiny', **STAGED | {'cutouts.steps': 2, 'steps': 5})
    shutil.copytree(out, copied := tmp_path / 'kept')
    run_recipe(kept, copied, progress=False, extend=True)  # that length is its own
    assert stage_losses(copied)[0] == before[0] and stage_losses(copied)[1][:4] == before[1] and len(stage_losses(copied)[1]) == 5 and not (copied / 'old-1').exists()
    run_recipe(recipe, out, extend=True)
    assert 'learned from the stage before (cutouts), which has been trained on since: it begins again' in capsys.readouterr().out
    assert stage_losses(out) == unbroken
    assert [r['loss'] for r in read_log(out / 'old-1/log.csv')] == before[1] and (out / '1-cutouts/done').exists()
    run_recipe(recipe, out, progress=False, extend=True)  # all have come to their end
    assert stage_losses(out) == unbroken and not (out / 'old-2').exists()


def test_an_extension_that_is_broken_goes_on(tmp_path, unbroken, command):
    out, recipe = tmp_path / 'run', make_recipe('e2e-rss', SPEC, 'tiny', **STAGED)
    run_recipe(recipe, out, progress=False, callbacks=StopFirst())
    with pytest.raises(KeyboardInterrupt): run_recipe(recipe, out, progress=False, extend=True, callbacks=CtrlC())
    ran = command('train', '--model', 'e2e-rss', '--data', SPEC, '--preset', 'tiny', '--out', out, '--set', *(f'{k}={v}' for k, v in STAGED.items()))
    assert ran.returncode == 1 and ran.stderr.strip().endswith('learned from the stage before (cutouts), which has been trained on since; --extend begins this stage again, or choose another folder')
    assert stage_losses(out)[0] == unbroken[0] and not (out / 'old-1').exists()
    run_recipe(recipe, out, progress=False, extend=True)
    assert stage_losses(out) == unbroken
