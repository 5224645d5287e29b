"""How long a protocol file of CUHK-SYSU takes: scipy's reader, ours, and the arrays kept from the last time.

    python benchmarks/layouts.py ../shared/real/cuhk_sysu/TestG100.mat

Each in a process of its own, side by side; prints a Markdown table.
"""
import platform, shutil, subprocess, sys, tempfile
from pathlib import Path

TIMED = '''
import resource, sys, time
{setup}
base, start, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
{run}
print(time.perf_counter() - start, time.process_time() - cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)
'''
WAYS = {
    'scipy.io.loadmat': ('from scipy.io import loadmat', 'loadmat(sys.argv[1])'),
    'read_lists, first time (checked, cache written)': ('from person_search_nb.cuhk_files import read_lists', 'read_lists(sys.argv[1])'),
    'read_lists, again': ('from person_search_nb.cuhk_files import read_lists', 'read_lists(sys.argv[1])'),
}


def main(file):
    import numpy, scipy
    print(f'{platform.system()} {platform.machine()}, Python {platform.python_version()}, numpy {numpy.__version__}, scipy {scipy.__version__}; {Path(file).name}, {Path(file).stat().st_size / 1e6:.1f} MB\n')
    print('| | wall s | CPU s | memory, MB | CPU, relative |\n|---|---|---|---|---|')
    first = None
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(file, folder)  # the cache goes beside the copy
        for name, (setup, run) in WAYS.items():
            done = subprocess.run([sys.executable, '-c', TIMED.format(setup=setup, run=run), copy], capture_output=True, text=True, check=True)
            wall, cpu, memory = map(float, done.stdout.split())
            first = first or cpu
            print(f'| {name} | {wall:.2f} | {cpu:.2f} | {memory:.0f} | {first / cpu:.0f}x |', flush=True)


if __name__ == '__main__': main(*sys.argv[1:])
