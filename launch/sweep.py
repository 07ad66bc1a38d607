"""``python launch/sweep.py [SWEEP.yaml] [options]``: the same as ``medveil sweep``. Nothing is defined here."""

import sys

if __name__ == "__main__":
    # Python puts this script's folder first; the project's packages lie beside it, not in it.
    sys.path[0] = sys.path[0].removesuffix("launch")
    try:
        # The command itself, not only its front: that one imports what it needs when it is needed.
        import medveil.launch.commands.sweep  # noqa: F401
        from medveil.launch.cli import main
    except ImportError as error:
        print(f"medveil is not installed here ({error}): type 'make demo', or 'pip install -e .'", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(["sweep", *sys.argv[1:]]))
