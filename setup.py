"""Hands the live metadata in settings.ini to setuptools (pyproject.toml lists it as dynamic)."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_name']

setup(
    version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], license_expression=cfg['license'],
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    project_urls={'Source': cfg['git_url']} if cfg['git_url'] else {},
    classifiers=['Intended Audience :: Education', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 *(f'Programming Language :: Python :: {v}' for v in cfg['python_versions'].split())],
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(), extras_require={e: cfg[f'{e}_requirements'].split() for e in ('dev', 'docs', 'data', 'explore', 'search', 'deploy', 'pandas', 'milvus', 'timm', 'hub')},
    packages=[lib], package_data={lib: ['py.typed', '*.mplstyle', 'weights/*', 'weights/moments/*', 'page/*']},
    entry_points={'console_scripts': cfg['console_scripts'].splitlines(), 'nbdev': [f'{lib}={lib}._modidx:d']},
)
