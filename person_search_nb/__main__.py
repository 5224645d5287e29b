"`python -m person_search_nb COMMAND ...`: what launchers such as torchrun start."
from person_search_nb.cli import main

main()
