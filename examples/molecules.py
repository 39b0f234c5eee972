"""Chemistry of the molecule search: molecules, oracles, offspring, fingerprints, and the metric.

These functions work on SMILES and do not use the buffer. All random numbers come from the numpy
Generator argument.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, DataStructs, RDConfig, rdBase
from rdkit.Chem import QED, rdFingerprintGenerator, rdMolDescriptors, rdqueries
from rdkit.Contrib.SA_Score import sascorer

CELECOXIB = "Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1"
# Heavy atoms. 38 is the most in ZINC250k, on which these oracles are usually reported.
MIN_ATOMS, MAX_ATOMS = 6, 38
N_BITS = 2048

_ECFP4 = rdFingerprintGenerator.GetMorganGenerator(radius=2)
_FINGERPRINTS = (  # the neighbourhood of each atom, and the distances between all atoms
    rdFingerprintGenerator.GetMorganGenerator(radius=1, fpSize=N_BITS // 2),
    rdFingerprintGenerator.GetAtomPairGenerator(fpSize=N_BITS // 2),
)
_REFUSED_ATOMS = (
    Chem.AtomFromSmarts(
        "[!#6;!#7;!#8;!#9;!#15;!#16;!#17;!#35;!#53]"
    ),  # all but C, N, O, F, P, S, Cl, Br, I
    rdqueries.NumRadicalElectronsGreaterQueryAtom(0),
)


def load_molecules() -> list[str]:
    """Read the molecules that come with RDKit: the first 5,000 of NCI, and the WEHI library.

    Returns:
        Some 14,400 distinct canonical SMILES in the order of the files, without those that
        `canonical_smiles` refuses.
    """
    data = Path(RDConfig.RDDataDir)
    smiles = [
        line.split()[0]
        for line in (data / "NCI" / "first_5K.smi").read_text().splitlines()
        if line.strip()
    ]
    library = data / "Pains" / "test_data" / "wehi_mols.csv"
    if library.exists():
        smiles += [row[0] for row in csv.reader(library.read_text().splitlines()) if row]
    return list(dict.fromkeys(key for key in map(canonical_smiles, smiles) if key is not None))


@functools.lru_cache(maxsize=100_000)
def canonical_smiles(smiles: str) -> str | None:
    """Write a molecule in the one form that serves as its key.

    Stereochemistry and isotopes are dropped: no oracle here sees them, and each variant would cost
    a call.

    Args:
        smiles: Any text.

    Returns:
        The canonical SMILES; None if `smiles` is invalid, a mixture, a radical, has an element rare
        in drugs, or is not of `MIN_ATOMS` to `MAX_ATOMS` heavy atoms.
    """
    with rdBase.BlockLogs():
        mol = None if "." in smiles else Chem.MolFromSmiles(smiles)
        if mol is None or not MIN_ATOMS <= mol.GetNumHeavyAtoms() <= MAX_ATOMS:
            return None
        if any(map(mol.GetAtomsMatchingQuery, _REFUSED_ATOMS)):
            return None
        return str(Chem.MolToSmiles(mol, isomericSmiles=False))


def qed(smiles: str) -> float:
    """Rate drug-likeness, in [0, 1].

    Source:
        Bickerton et al. 2012, Quantifying the chemical beauty of drugs, with its mean weights.
    """
    return float(QED.qed(_parse(smiles)))  # type: ignore[no-untyped-call]


def plogp(smiles: str) -> float:
    """Rate the penalised logP: Crippen's logP, less synthetic accessibility, less large rings.

    The last term is the number of atoms beyond six of the largest ring. The value is not normalised
    by the statistics of a data set: any finite number, about 0 for drugs. It has no sensible
    optimum (long greasy chains), but all papers report it.

    Source:
        Gomez-Bombarelli et al. 2018, Automatic chemical design, and Kusner et al. 2017, Grammar
        variational autoencoder; the accessibility as in Ertl and Schuffenhauer 2009.
    """
    mol = _parse(smiles)
    largest_ring = max(map(len, mol.GetRingInfo().AtomRings()), default=0)
    with rdBase.BlockLogs():
        accessibility = sascorer.calculateScore(mol)
    logp, _ = rdMolDescriptors.CalcCrippenDescriptors(mol)
    return float(logp - accessibility - max(largest_ring - 6, 0))


def celecoxib(smiles: str) -> float:
    """Rate the likeness to celecoxib, in [0, 1]: Tanimoto similarity of ECFP4 counts.

    Celecoxib itself has 1.

    Source:
        Brown et al. 2019, GuacaMol, the task "celecoxib rediscovery".
    """
    counts = _ECFP4.GetSparseCountFingerprint(_parse(smiles))
    return float(DataStructs.TanimotoSimilarity(counts, _celecoxib_counts()))


ORACLES: dict[str, Callable[[str], float]] = {"qed": qed, "plogp": plogp, "celecoxib": celecoxib}


@functools.cache
def _celecoxib_counts() -> Any:
    return _ECFP4.GetSparseCountFingerprint(_parse(CELECOXIB))


def _parse(smiles: str) -> Chem.Mol:
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(
            f"{smiles!r} is not a molecule: give a valid SMILES, such as canonical_smiles returns."
        )
    return mol


def fingerprints(smiles: list[str]) -> torch.Tensor:
    """Count substructures: each atom with its neighbours, each pair of atoms with its distance.

    Args:
        smiles: n valid SMILES.

    Returns:
        (n, 2048) float32, log(1 + count), hashed to half of the columns each.
    """
    counts = np.array([_counts(one) for one in smiles], dtype=np.float32).reshape(-1, N_BITS)
    return torch.from_numpy(np.log1p(counts))


@functools.lru_cache(maxsize=20_000)
def _counts(smiles: str) -> NDArray[np.uint8]:
    """Return the counts of one molecule, (2048,), up to 255; RDKit takes 0.2 ms for each."""
    mol = _parse(smiles)
    counts = np.concatenate(
        [generator.GetCountFingerprintAsNumPy(mol) for generator in _FINGERPRINTS]
    )
    return np.minimum(counts, 255).astype(np.uint8)


_TRIES = 10
_SINGLE = Chem.BondType.SINGLE
_BOND_TYPES = (_SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
_ATOMS, _ATOM_SHARES = (6, 7, 8, 16, 9, 17), (0.5, 0.15, 0.15, 0.05, 0.1, 0.05)
_EDITS = ("append", "insert", "delete", "exchange", "bond", "close", "open")
_EDIT_SHARES = (0.2, 0.1, 0.2, 0.2, 0.1, 0.15, 0.05)
_OPEN_BOND = Chem.MolFromSmarts("*-;!@*")
# What a chemist strikes out at sight: strained and cumulated double bonds, polyenes, chains of
# heteroatoms, halogens on anything but carbon, sulfur of odd valence, carbocations and iminium,
# rings of eight atoms and more.
_STRUCK_OUT = [
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[R]=[R]=[R] [r3,r4]=[r3,r4] [#6]=[#6]=* [C;!R]=[C,N;!R]-[C,N;!R]=[C,N;!R] "
        "[N,O,S;X2,X3;+0]-;!@[O,S;X2] [#7]-;!@[#7]-;!@[#7] [F,Cl,Br,I]-[!#6] [S;!H0;!D1] "
        "[S;D3;!$(S=O)] [S;D4;!$(S(=O)=[O,N])] [C,N;+] "
        "[r8,r9,r10,r11,r12,r13,r14]"
    ).split()
]


def mutate(smiles: str, rng: np.random.Generator) -> str | None:
    """Make one small change to a molecule: add, remove or change an atom, a bond or a ring.

    Args:
        smiles: The parent.
        rng: The same parent and state of the generator give the same child.

    Returns:
        The child's canonical SMILES, never the parent's; None if ten attempts gave nothing
        admissible.

    Source:
        The mutations of Jensen 2019, A graph-based genetic algorithm, made by editing the graph.
    """
    for _ in range(_TRIES):
        child = Chem.RWMol(_editable(smiles))
        _edit(child, rng)
        key = _admit(child)
        if key is not None and key != smiles:
            return key
    return None


def crossover(a: str, b: str, rng: np.random.Generator) -> str | None:
    """Join a part of one molecule to a part of another; both are cut in the same way.

    They are cut at one open bond, or through one ring.

    Args:
        a: One parent.
        b: The other.
        rng: The same parents and state of the generator give the same child.

    Returns:
        The child's canonical SMILES, never a parent's; None if ten attempts gave nothing
        admissible.

    Source:
        The crossovers of Jensen 2019, A graph-based genetic algorithm.
    """
    first, second = _editable(a), _editable(b)
    shift = first.GetNumAtoms()
    for _ in range(_TRIES):
        through_ring = bool(rng.random() < 0.5)
        cuts, other_cuts = (_cut(mol, rng, through_ring=through_ring) for mol in (first, second))
        if not cuts or not other_cuts:
            continue
        child = Chem.RWMol(Chem.CombineMols(first, second))
        for begin, end in cuts + [(begin + shift, end + shift) for begin, end in other_cuts]:
            child.RemoveBond(begin, end)
        for begin, end in {
            (stays, kept + shift) for (stays, _), (kept, _) in zip(cuts, other_cuts, strict=True)
        }:
            child.AddBond(begin, end, _SINGLE)
        whole = next(part for part in Chem.GetMolFrags(child) if cuts[0][0] in part)
        for index in sorted(set(range(child.GetNumAtoms())).difference(whole), reverse=True):
            child.RemoveAtom(index)
        key = _admit(child)
        if key is not None and key not in (a, b):
            return key
    return None


def _edit(mol: Chem.RWMol, rng: np.random.Generator) -> None:
    """Make one random edit in place; the molecule may not be admissible afterwards."""
    edit = _EDITS[int(rng.choice(len(_EDITS), p=_EDIT_SHARES))]
    element = int(rng.choice(_ATOMS, p=_ATOM_SHARES))
    atom = mol.GetAtomWithIdx(int(rng.integers(mol.GetNumAtoms())))
    bond = mol.GetBondWithIdx(int(rng.integers(mol.GetNumBonds())))
    ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    if edit == "append":
        mol.AddBond(
            atom.GetIdx(), mol.AddAtom(Chem.Atom(element)), _BOND_TYPES[int(rng.random() < 0.2)]
        )
    elif edit == "insert":
        mol.RemoveBond(*ends)
        new = mol.AddAtom(Chem.Atom(element))
        for end in ends:
            mol.AddBond(end, new, _SINGLE)
    elif edit == "delete":
        neighbours = [neighbour.GetIdx() for neighbour in atom.GetNeighbors()]
        if len(neighbours) == 2 and mol.GetBondBetweenAtoms(*neighbours) is None:
            mol.AddBond(neighbours[0], neighbours[1], _SINGLE)
        mol.RemoveAtom(atom.GetIdx())
    elif edit == "exchange":
        atom.SetAtomicNum(element)
        atom.SetFormalCharge(0)
    elif edit == "bond":
        bond.SetBondType(_BOND_TYPES[int(rng.choice(3, p=(0.45, 0.45, 0.1)))])
    elif edit == "close":
        apart = Chem.GetDistanceMatrix(mol)[atom.GetIdx()]
        far = np.flatnonzero((apart == 4) | (apart == 5))  # a new ring of five or six
        if len(far):
            mol.AddBond(atom.GetIdx(), int(rng.choice(far)), _SINGLE)
    elif bond.IsInRing():
        mol.RemoveBond(*ends)


def _cut(mol: Chem.Mol, rng: np.random.Generator, *, through_ring: bool) -> list[tuple[int, int]]:
    """Return bonds to cut: one outside of rings, two of one ring, or none.

    Each bond is (atom that stays, atom that goes).
    """
    if not through_ring:
        bonds = mol.GetSubstructMatches(_OPEN_BOND)
        chosen = [bonds[int(rng.integers(len(bonds)))]] if bonds else []
    else:
        rings = mol.GetRingInfo().BondRings()
        ring = (
            [mol.GetBondWithIdx(i) for i in rings[int(rng.integers(len(rings)))]] if rings else []
        )
        bonds = [
            (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
            for bond in ring
            if bond.GetBondType() == _SINGLE
        ]
        chosen = (
            [bonds[i] for i in rng.choice(len(bonds), 2, replace=False)] if len(bonds) >= 2 else []
        )
    return [(end, begin) if rng.random() < 0.5 else (begin, end) for begin, end in chosen]


@functools.lru_cache(maxsize=1_000)
def _editable(smiles: str) -> Chem.Mol:
    """Return a molecule with plain single and double bonds and the hydrogens of its valences."""
    mol = _parse(smiles)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(False)
        atom.SetNumExplicitHs(0)
    return mol


def _admit(child: Chem.RWMol) -> str | None:
    """Return the key of an edited molecule; None if it is broken, refused or struck out."""
    with rdBase.BlockLogs():
        if Chem.SanitizeMol(child, catchErrors=True) or any(
            map(child.HasSubstructMatch, _STRUCK_OUT)
        ):
            return None
        return canonical_smiles(Chem.MolToSmiles(child, isomericSmiles=False))


def auc_top_k(rewards: Sequence[float], k: int = 10, *, max_calls: int, every: int = 100) -> float:
    """Measure how early a search found good samples: the area under the mean of the k best.

    The mean is taken every `every` calls and after the last one, starts from 0 at no call, and is
    joined by straight lines. A search that ends early keeps its last mean up to `max_calls`. The
    area is in [0, 1] for rewards in [0, 1]. For other rewards (plogp) it is in their units, and
    compares searches for the same reward only.

    Args:
        rewards: In the order of the calls; NaN is a call that found nothing; rewards beyond
            `max_calls` do not count.
        k: Number of best samples.
        max_calls: The budget, by which the area is divided.
        every: Calls from one evaluation to the next.

    Returns:
        The area, 0.0 without rewards.

    Source:
        Gao et al. 2022, Sample efficiency matters: a benchmark for practical molecular
        optimization, AUC top-k.
    """
    found = np.asarray(rewards, dtype=np.float64)[:max_calls]
    calls, means = [0], [0.0]
    for n in [*range(every, len(found), every), len(found)]:
        measured = found[:n][~np.isnan(found[:n])]
        calls.append(n)
        means.append(float(np.sort(measured)[-k:].mean()) if len(measured) else 0.0)
    area = np.dot(np.diff(calls), (np.array(means[1:]) + means[:-1]) / 2)
    return float(area + (max_calls - len(found)) * means[-1]) / max_calls
