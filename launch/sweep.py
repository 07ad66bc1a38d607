"""``python launch/sweep.py [SWEEP.yaml] [options]``: the same as ``medveil sweep``. Nothing is defined here."""

import sys

if __name__ == "__main__":
    # Python puts this script's folder first; the project's packages lie beside it, not in it.
    sys.path[0] = sys.path[0].removesuffix("launch")
    try:
        from medveil.launch.cli import main

        code = main(["sweep", *sys.argv[1:]])
    except ModuleNotFoundError as error:
        print(f"medveil is not installed here ({error}): type 'make demo', or 'pip install -e .'", file=sys.stderr)
        code = 2
    sys.exit(code)
