"""A comparison: which methods segment the same test cases, and what is measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from segmed.config.base import Length, Positive, Section
from segmed.config.data import DataConfig, SplitConfig
from segmed.config.methods import ClassicalMethod
from segmed.config.row_families import FamilyConfig, check_families, usual_families
from segmed.config.training import EvaluateConfig

Convention = Literal["standard", "zabihollahy2020"]
OF_METHODS = ("slices", "smallest_ml", "fill_obstruction", "cavity")  # fields of a row


class RowConfig(Section):
    """One method of a comparison: finished runs, their fine stages inside a region, or a classical method in one."""

    run: str | tuple[str, ...] | None = Field(
        None, description="folder of a run or of a cross-validation, or a pattern of several, its seeds"
    )
    command: str | None = Field(
        None,
        description="that makes the run, `segmed train ...` or `python tools/train_seg.py ...`: --on carries it out",
    )
    method: ClassicalMethod | None = Field(None, description="a classical method")
    region: str = Field(
        "auto",
        description="where a method looks: reference, everywhere, or a run's folder whose test label maps give it; "
        "reference beside a run: its fine stage alone looks, in the region of the reference; auto: a method in the "
        "reference, a run in the region that it finds itself",
    )
    slices: bool = Field(False, description="whether each slice is looked at by itself")
    smallest_ml: Length = Field(0.0, description="smaller pieces of what the method finds are dropped")
    fill_obstruction: bool = Field(False, description="whether dark cores that the tissue encloses belong to it")
    cavity: str | None = Field(None, description="label that encloses dark cores too, such as the blood pool")

    @model_validator(mode="after")
    def _one_of_both(self) -> RowConfig:
        if (self.run is None) == (self.method is None):
            raise ValueError("a row is either a run or a method: give one of the two")
        if not all(run.strip() for run in self.patterns) or self.run == ():
            raise ValueError("a run has an empty name: give its folder")
        if self.run is not None and self.region not in ("auto", "reference"):
            raise ValueError(
                f"a run looks in the region that it finds itself, or in the reference's, not in '{self.region}': "
                "leave region out, or give reference"
            )
        given = [name for name in OF_METHODS if getattr(self, name) != type(self).model_fields[name].default]
        if self.run is not None and given:
            raise ValueError(f"{', '.join(given)} go with a method, a run is compared as it is: leave them out")
        return self

    @property
    def place(self) -> str:
        """Where it looks: `reference`, `everywhere`, a run's folder, or `own`, which a run finds itself."""
        if self.region != "auto":
            return self.region
        return "reference" if self.run is None else "own"

    @property
    def given(self) -> bool:
        """Whether a run's fine stage looks in a region that is given."""
        return self.run is not None and self.place == "reference"

    @property
    def kind(self) -> str:
        """What it is, for the families of tests."""
        if self.run is not None:
            return "networks" if self.place == "own" else "networks, region given"
        places = {"reference": "classical, region given", "everywhere": "classical, no region"}
        return places.get(self.place, f"classical in {self.place}")

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the runs."""
        return () if self.run is None else (self.run,) if isinstance(self.run, str) else self.run


def of_seed(run: str, seed: int) -> str:
    """The folder of a row's run with a seed of its own."""
    return f"{Path(run)}-seed{seed}"


class CleaningConfig(Section):
    """Loose pieces of what classical rows find; of a network's, its own training has chosen on validation."""

    candidates: Literal["auto", "none"] | tuple[Literal["largest"] | Positive, ...] = Field(
        "auto",
        description="what may be done, besides nothing: keep the largest piece alone (largest), or drop pieces below "
        "so many ml; the one is taken that raises the mean Dice most in cases that are not tested; auto: largest, 0.1 "
        "and 0.5; none: nothing is done",
    )
    cases: PositiveInt = Field(4, description="validation cases of each fold that decide; training cases without any")

    @property
    def known(self) -> tuple[str | float, ...]:
        """The candidates."""
        if self.candidates == "auto":
            return ("largest", 0.1, 0.5)
        return () if self.candidates == "none" else tuple(self.candidates)


class CompareConfig(Section):
    """One comparison, whole: rows scored in a region of the same cases, or, without `data.regions`, tests of runs."""

    name: str = Field("comparison", description="title of tables and figures")
    output: Path = Field(Path("runs/comparison"), description="folder of label maps, tables and figures")
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    each_fold: bool = Field(
        True, description="test every fold of split.folds; false: the one test part that split describes"
    )
    split_of: Path | None = Field(None, description="take the parts of this run or cross-validation instead")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        description="a row's command makes a run with each of them, RUN-seed0, RUN-seed1 and so on, which are averaged "
        "a case; none: it makes RUN",
    )
    reference: str = Field(description="name of the row that the others are compared with")
    target: str = Field("scar", description="label of the tissue")
    rest: str = Field("myocardium", description="label of the region without the tissue")
    region: str = Field("lv_wall", description="name in data.regions of the region, tissue included")
    evaluate: EvaluateConfig = EvaluateConfig()
    cleaning: CleaningConfig = CleaningConfig()
    rows: dict[str, RowConfig] = Field(description="name in the tables -> what is compared")
    families: tuple[FamilyConfig, ...] | None = Field(
        None,
        description="tests that are corrected together, fixed before the figures are known; none: networks, fine "
        "stages in the reference's region, classical methods there, in each run's region, and everywhere, each against "
        "the reference",
    )

    @model_validator(mode="after")
    def _names_fit(self) -> CompareConfig:
        if self.reference not in self.rows:
            raise ValueError(f"reference '{self.reference}' is no row: choose one of {', '.join(self.rows) or 'none'}")
        if len(self.rows) < 2:
            raise ValueError("one row alone can't be compared: give two or more")
        self._check_seeds()
        if self.by_own_tests:
            if self.families is not None:
                raise ValueError("families go with data.regions, in which rows are scored anew: leave them out")
            return self
        if self.region not in self.data.regions:
            raise ValueError(
                f"region '{self.region}' is not in data.regions: add it, as {{lv_wall: [myocardium, scar]}}"
            )
        for name in (self.target, self.rest):
            if name not in self.within:
                raise ValueError(f"region '{self.region}' is {', '.join(self.within)}: it must hold '{name}'")
        if self.families is not None:
            check_families(self.families, tuple(self.rows))
        return self

    def _check_seeds(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands twice: leave it out")
        if self.seeds and not any(row.command for row in self.rows.values()):
            raise ValueError("seeds are for rows that have a command: add one, as segmed train --config FILE")
        several = (name for name, row in self.rows.items() if row.command and len(row.patterns) > 1)
        if self.seeds and (name := next(several, None)):
            raise ValueError(f"row '{name}' names several runs: with seeds it names one folder, RUN, for RUN-seed0")

    @property
    def by_own_tests(self) -> bool:
        """Whether the figures of the runs' own tests are compared: no region is given in which to score anew."""
        return not self.data.regions and all(row.kind == "networks" for row in self.rows.values())

    @property
    def _of_seeds(self) -> frozenset[str]:
        """Runs that there are once a seed."""
        commanded = {str(Path(row.patterns[0])) for row in self.rows.values() if row.command and row.patterns}
        return frozenset(commanded if self.seeds else ())

    def runs_of(self, row: RowConfig) -> tuple[str, ...]:
        """Folders or patterns of a row's runs, one a seed where its command makes them."""
        return tuple(run for pattern in row.patterns for run in self._each_seed(pattern))

    def walls_of(self, row: RowConfig) -> str:
        """Folder of the run in whose region a method looks; of several seeds it is that of the first."""
        return self._each_seed(row.region)[0]

    def _each_seed(self, run: str) -> tuple[str, ...]:
        return tuple(of_seed(run, seed) for seed in self.seeds) if str(Path(run)) in self._of_seeds else (run,)

    @property
    def tested_families(self) -> tuple[FamilyConfig, ...]:
        """Those given, else one a kind of row."""
        if self.families is not None:
            return self.families
        return usual_families({name: row.kind for name, row in self.rows.items()}, self.reference)

    @property
    def within(self) -> tuple[str, ...]:
        """Labels that make up the region."""
        return tuple(self.data.regions[self.region])
