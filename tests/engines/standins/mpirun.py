"""Stands for mpirun: the command once, told how many ranks it stands for."""

import os
import sys

dash_n, ranks, *words = sys.argv[1:]
assert dash_n == "-n"
os.environ["STANDIN_RANKS"] = str(int(ranks))
os.execvp(words[0], words)
