"""The demo's table over several seeds.

    for s in 0 1 2; do person-search demo --seed $s --out runs/seed$s; done
    for s in 0 1 2; do python benchmarks/demo.py --swap runs/seed$s; done    # what each stage of distillation gives
    python benchmarks/demo.py runs/seed*/results.json
"""
import json
import sys
from pathlib import Path

from person_search_nb.anchors import fit_heights
from person_search_nb.datasets import open_dataset
from person_search_nb.systems import imprint
from person_search_nb.evaluation import evaluate
from person_search_nb.models import load_model
from person_search_nb.demo import build_pair, DemoConfig, learn, ROWS

SCORES = dict(mAP='mAP', top1='top-1', top5='top-5', top10='top-10', det_ap='detection AP', det_recall='recall')


def mean(values): return sum(values) / len(values)


def short(n): return '0' if not n else f'{n / 1e6:.3g} M' if n >= 1e6 else f'{n / 1e3:.3g} k'


def swap(folder):
    "Both students of a finished demo once more, each from the other one's trunk."
    config = DemoConfig(**json.loads((folder / 'results.json').read_text())['config'])
    data, gallery, queries = (open_dataset(config.spec(), s, **k) for s, k in (('train', dict(cache=True)), ('gallery', dict(cache=True)), ('query', {})))
    _, make_student = build_pair(config, data.num_ids, fit_heights(data.heights()))
    scores = {'before': {}, 'after': {}}
    for trunk in config.plain_trunk, config.hdl_trunk: scores['before'][trunk] = float(evaluate(make_student(trunk).eval(), gallery, queries)['mAP'])
    for name, trunk, teacher in ('student_plain', config.hdl_trunk, None), ('student_hdl', config.plain_trunk, load_model(folder / 'teacher.safetensors')):
        student = imprint(make_student(trunk), data)
        learn(config, student, data, config.student_epochs, config.student_lr, teacher, label=f'{name} from {trunk}')
        scores['after'][name] = float(evaluate(student, gallery, queries)['mAP'])
    (folder / 'swap.json').write_text(json.dumps(scores, indent=1))


def stages(folders):
    "The table of `swap`: rows are trunks, columns what was learned after them."
    runs = [(json.loads((f / 'results.json').read_text()), json.loads((f / 'swap.json').read_text())) for f in folders]
    print('\nmAP by what was taught, mean of these seeds:\n\n| trunk | as shipped | then without a teacher | then FD + AD + PD |\n|---|---|---|---|')
    for trunk, name in ('plain_trunk', 'learned alone'), ('hdl_trunk', 'taught'):
        own = lambda key, r, s: r[key]['mAP'] if (trunk == 'plain_trunk') == (key == 'student_plain') else s['after'][key]
        print(f'| {name} | {mean([s["before"][r["config"][trunk]] for r, s in runs]):.3f} | ' +
              ' | '.join(f'{mean([own(k, r, s) for r, s in runs]):.3f}' for k in ('student_plain', 'student_hdl')) + ' |')


def main():
    if len(sys.argv) < 2: sys.exit(__doc__)
    if sys.argv[1] == '--swap': return swap(Path(sys.argv[2]))
    runs = sorted((json.loads(Path(p).read_text()) for p in sys.argv[1:]), key=lambda r: r['seed'])
    print(f'Mean of seeds {", ".join(str(r["seed"]) for r in runs)}:\n')
    print('| model | ' + ' | '.join(SCORES.values()) + ' | parameters | MACs/scene | MACs/person |\n|' + '---|' * (len(SCORES) + 4))
    for key, name in ROWS.items():
        print(f'| {name} | ' + ' | '.join(f'{mean([r[key][s] for r in runs]):.3f}' for s in SCORES) + ' | ' +
              ' | '.join(short(runs[0][key][k]) for k in ('params', 'macs_scene', 'macs_person')) + ' |')
    print('\nmAP of each:\n\n| seed | ' + ' | '.join(ROWS.values()) + ' | teacher - histogram | taught - plain | taught / teacher | seconds |\n|' + '---|' * (len(ROWS) + 5))
    for r in runs:
        m = {k: r[k]['mAP'] for k in ROWS}
        print(f'| {r["seed"]} | ' + ' | '.join(f'{v:.3f}' for v in m.values()) +
              f' | {m["teacher"] - m["histogram"]:+.3f} | {m["student_hdl"] - m["student_plain"]:+.3f} | {m["student_hdl"] / m["teacher"]:.2f} | {r["seconds"]:.0f} |')
    folders = [Path(p).parent for p in sys.argv[1:]]
    if all((f / 'swap.json').exists() for f in folders): stages(folders)


if __name__ == '__main__': main()
