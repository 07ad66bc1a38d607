"""The protectors that commands and sweeps know by name."""

from medveil.baselines import AR, LSP, SEP, TAP, ErrorMinimising, RandomSigns, Unprotected
from medveil.protector import Protector
from medveil.salm import SALM
from medveil.umed import UMed

PROTECTORS: dict[str, type[Protector]] = {
    cls.name: cls for cls in (UMed, SALM, ErrorMinimising, TAP, SEP, LSP, AR, RandomSigns, Unprotected)
}
