"""The demo's table over several seeds.

    for s in 0 1 2; do person-search demo --seed $s --out runs/seed$s; done
    python benchmarks/demo.py runs/seed*/results.json
"""
import json
import sys
from pathlib import Path

from person_search_nb.demo import ROWS

SCORES = dict(mAP='mAP', top1='top-1', top5='top-5', top10='top-10', det_ap='detection AP', det_recall='recall')


def mean(values): return sum(values) / len(values)


def short(n): return '0' if not n else f'{n / 1e6:.3g} M' if n >= 1e6 else f'{n / 1e3:.3g} k'


def main():
    if len(sys.argv) < 2: sys.exit(__doc__)
    runs = sorted((json.loads(Path(p).read_text()) for p in sys.argv[1:]), key=lambda r: r['seed'])
    print(f'Mean of seeds {", ".join(str(r["seed"]) for r in runs)}:\n')
    print('| model | ' + ' | '.join(SCORES.values()) + ' | parameters | MACs/scene | MACs/person |\n|' + '---|' * (len(SCORES) + 4))
    for key, name in ROWS.items():
        print(f'| {name} | ' + ' | '.join(f'{mean([r[key][s] for r in runs]):.3f}' for s in SCORES) + ' | ' +
              ' | '.join(short(runs[0][key][k]) for k in ('params', 'macs_scene', 'macs_person')) + ' |')
    print('\nmAP of each:\n\n| seed | ' + ' | '.join(ROWS.values()) + ' | teacher - histogram | distillation | distilled / teacher | seconds |\n|' + '---|' * (len(ROWS) + 5))
    for r in runs:
        m = {k: r[k]['mAP'] for k in ROWS}
        print(f'| {r["seed"]} | ' + ' | '.join(f'{v:.3f}' for v in m.values()) +
              f' | {m["teacher"] - m["histogram"]:+.3f} | {m["student_hdl"] - m["student_plain"]:+.3f} | {m["student_hdl"] / m["teacher"]:.2f} | {r["seconds"]:.0f} |')


if __name__ == '__main__': main()
