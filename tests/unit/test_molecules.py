"""The chemistry of the example: known values, keys, offspring, features, and the benchmark's
metric.
"""

import importlib.util
import pathlib
import types

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import Descriptors
from rdkit.Contrib.SA_Score import sascorer

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
CAFFEINE = "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
PARENTS = [
    "CC(=O)Nc1ccc(O)cc1",
    ASPIRIN,
    CAFFEINE,
    "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "NS(=O)(=O)c1ccc(-n2cccn2)cc1",
]


@pytest.fixture(scope="session")
def molecules() -> types.ModuleType:
    path = pathlib.Path(__file__).parents[2] / "examples" / "molecules.py"
    spec = importlib.util.spec_from_file_location("molecules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real(molecules: types.ModuleType) -> list[str]:
    return molecules.load_molecules()


# -- molecules and keys ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_molecules_are_distinct_and_canonical(
    molecules: types.ModuleType, real: list[str]
) -> None:
    assert 14_000 < len(real) < 15_000
    assert len(set(real)) == len(real)
    assert [molecules.canonical_smiles(smiles) for smiles in real[::40]] == real[::40]
    assert molecules.CELECOXIB not in real


def test_all_ways_to_write_a_molecule_have_one_key(molecules: types.ModuleType) -> None:
    mol = Chem.MolFromSmiles(CAFFEINE)
    written = {Chem.MolToSmiles(mol, doRandom=True) for _ in range(50)}
    assert len(written) > 10
    assert {molecules.canonical_smiles(smiles) for smiles in written} == {CAFFEINE}
    assert {molecules.canonical_smiles(smiles) for smiles in ("C1=CC=CC=C1", "c1ccccc1")} == {
        "c1ccccc1"
    }


@pytest.mark.parametrize("variant", ["C[C@H](O)CCCC", "C[C@@H](O)CCCC", "[13CH3]C(O)CCCC"])
def test_stereochemistry_and_isotopes_are_not_part_of_the_key(
    molecules: types.ModuleType, variant: str
) -> None:
    assert molecules.canonical_smiles(variant) == "CCCCC(C)O"


@pytest.mark.parametrize(
    "refused",
    [
        "",
        "no molecule",
        "c1ccccc",
        "CC(C)(C)(C)(C)CC",
        "CCCCCC.O",
        "CCO",
        "C" * 39,
        "[CH2]CCCCCC",
        "CCCCC[Si](C)(C)C",
    ],
    ids=[
        "empty",
        "text",
        "open ring",
        "five bonds",
        "mixture",
        "small",
        "large",
        "radical",
        "silicon",
    ],
)
def test_what_has_no_key(
    molecules: types.ModuleType, refused: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert molecules.canonical_smiles(refused) is None
    assert capfd.readouterr() == ("", ""), "RDKit complained aloud"


# -- oracles ---------------------------------------------------------------------------------------


def test_qed_has_its_published_values(molecules: types.ModuleType) -> None:
    assert molecules.qed(ASPIRIN) == pytest.approx(0.550, abs=1e-3)
    assert molecules.qed(CAFFEINE) == pytest.approx(0.538, abs=1e-3)


@pytest.mark.slow
def test_plogp_of_benzene_is_logp_less_the_lowest_accessibility_score(
    molecules: types.ModuleType,
) -> None:
    assert molecules.plogp("c1ccccc1") == pytest.approx(6 * 0.2940 - 6 * 0.0129 - 1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("smiles", "penalty"),
    [(ASPIRIN, 0), ("C1CCCCC1", 0), ("C1CCCCCCC1", 2), ("C1CCCCC1C1CCCCCCCCC1", 4)],
)
def test_plogp_penalises_the_largest_ring(
    molecules: types.ModuleType, smiles: str, penalty: int
) -> None:
    mol = Chem.MolFromSmiles(smiles)
    expected = Descriptors.MolLogP(mol) - sascorer.calculateScore(mol) - penalty
    assert molecules.plogp(smiles) == pytest.approx(expected)


@pytest.mark.slow
def test_celecoxib_is_most_like_itself(molecules: types.ModuleType, real: list[str]) -> None:
    assert molecules.celecoxib(molecules.CELECOXIB) == 1.0
    without_fluorine = "Cc1ccc(-c2cc(C)nn2-c2ccc(S(N)(=O)=O)cc2)cc1"
    assert 0.5 < molecules.celecoxib(without_fluorine) < 1.0
    assert molecules.celecoxib("CCCCCCCC") < 0.05
    assert max(map(molecules.celecoxib, real[::5])) < 0.5, "the search would begin next to its aim"


@pytest.mark.parametrize("oracle", ["qed", "plogp", "celecoxib"])
def test_an_oracle_refuses_what_is_no_molecule(molecules: types.ModuleType, oracle: str) -> None:
    with pytest.raises(ValueError, match="'c1ccccc' is not a molecule"):
        molecules.ORACLES[oracle]("c1ccccc")


# -- offspring -------------------------------------------------------------------------------------


def offspring(
    molecules: types.ModuleType, parents: list[str], seed: int, n: int = 200
) -> list[str | None]:
    rng = np.random.default_rng(seed)
    pairs = rng.choice(parents, size=(n, 2)).tolist()
    return [molecules.mutate(a, rng) for a, _ in pairs] + [
        molecules.crossover(a, b, rng) for a, b in pairs
    ]


@pytest.mark.slow
def test_offspring_follow_from_the_generator_alone(molecules: types.ModuleType) -> None:
    first = offspring(molecules, PARENTS, seed=1)
    molecules._editable.cache_clear()
    np.random.seed(99)  # global random state must not matter
    assert offspring(molecules, PARENTS, seed=1) == first
    assert offspring(molecules, PARENTS, seed=2) != first


@pytest.mark.slow
def test_offspring_are_new_canonical_and_many(
    molecules: types.ModuleType, real: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    children = [child for child in offspring(molecules, real, seed=3, n=500) if child is not None]
    assert len(children) > 950
    assert len(set(children)) > 900
    assert [molecules.canonical_smiles(child) for child in children] == children
    assert capfd.readouterr() == ("", ""), "RDKit complained aloud"


def test_a_child_is_never_a_parent(molecules: types.ModuleType) -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        assert molecules.mutate(ASPIRIN, rng) != ASPIRIN
        assert molecules.crossover(ASPIRIN, CAFFEINE, rng) not in (ASPIRIN, CAFFEINE)


def test_a_crossover_has_parts_of_both(molecules: types.ModuleType) -> None:
    rng = np.random.default_rng(5)
    children = {molecules.crossover("FCCCCCCC", "BrCCCCCCC", rng) for _ in range(100)}
    assert any(child is not None and "F" in child and "Br" in child for child in children)


def test_mutation_leads_out_of_a_small_molecule(molecules: types.ModuleType) -> None:
    rng, seen, smiles = np.random.default_rng(6), set(), "c1ccccc1"
    for _ in range(100):
        smiles = molecules.mutate(smiles, rng) or smiles
        seen.add(smiles)
    assert len(seen) > 80


def test_molecules_without_rings_or_open_bonds_have_no_crossover_of_that_kind(
    molecules: types.ModuleType,
) -> None:
    rng = np.random.default_rng(7)
    assert molecules.crossover("c1ccccc1", "CCCCCC", rng) is None


# -- features --------------------------------------------------------------------------------------


def test_fingerprints_count(molecules: types.ModuleType) -> None:
    features = molecules.fingerprints(["CCCCCC", "CCCCCCCC", "c1ccccc1", "CCCCCC"])
    assert features.shape == (4, molecules.N_BITS)
    assert features.dtype == torch.float32
    assert torch.equal(features[0], features[3])
    assert features.sum(dim=1)[1] > features.sum(dim=1)[0]
    assert features.expm1().max() >= 4
    assert molecules.fingerprints([]).shape == (0, molecules.N_BITS)


# -- the metric ------------------------------------------------------------------------------------


def test_auc_by_hand(molecules: types.ModuleType) -> None:
    # The best after 0, 2 and 4 calls is 0, 0.4 and 0.8, and stays 0.8 to call 6.
    area = 2 * (0.0 + 0.4) / 2 + 2 * (0.4 + 0.8) / 2 + 2 * 0.8
    assert molecules.auc_top_k([0.2, 0.4, 0.1, 0.8], k=1, max_calls=6, every=2) == pytest.approx(
        area / 6
    )


def test_auc_of_the_mean_of_the_two_best(molecules: types.ModuleType) -> None:
    # After 2 calls (0.2 + 0.4) / 2, after 4 (0.4 + 0.8) / 2, and after the last, 5, (0.8 + 0.6) /
    # 2.
    area = 2 * (0.0 + 0.3) / 2 + 2 * (0.3 + 0.6) / 2 + 1 * (0.6 + 0.7) / 2
    assert molecules.auc_top_k(
        [0.2, 0.4, 0.1, 0.8, 0.6], k=2, max_calls=5, every=2
    ) == pytest.approx(area / 5)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], 0.0),
        ([1.0] * 1000, 0.95),  # the mean starts from 0: half of the first hundred is lost
        ([1.0] * 2000, 0.95),  # what is beyond the budget does not count
        ([1.0] * 100, 0.95),  # a search that ends early keeps its mean
        ([float("nan")] * 1000, 0.0),
        ([float("nan"), 1.0] * 500, 0.95),
        ([-4.0] * 1000, -3.8),
    ],
)
def test_auc_at_its_edges(
    molecules: types.ModuleType, rewards: list[float], expected: float
) -> None:
    assert molecules.auc_top_k(rewards, max_calls=1000) == pytest.approx(expected)


def test_auc_rewards_the_earlier_find(molecules: types.ModuleType) -> None:
    early, late = [0.9] * 10 + [0.1] * 990, [0.1] * 990 + [0.9] * 10
    assert (
        molecules.auc_top_k(early, max_calls=1000)
        > 0.8
        > 0.2
        > molecules.auc_top_k(late, max_calls=1000)
    )
