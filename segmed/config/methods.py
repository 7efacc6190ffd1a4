"""Classical methods that tell one tissue, such as scar, from the rest of a region: one section a method."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from segmed.config.base import Count, Length, Positive, Section

Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Groups = Annotated[int, Field(ge=2)]


class RemoteConfig(Section):
    """Where remote, healthy myocardium is."""

    mask: str | None = Field(
        None, description="label that marks it; none: the darkest sector of the wall, found by itself"
    )
    arc_deg: Annotated[float, Field(ge=5, le=360)] = Field(60.0, description="size of that sector")
    border_mm: Length = Field(1.0, description="voxels nearer to the wall's border are left out")
    smallest_voxels: Count = Field(20, description="a sector or a mask with fewer is none")
    cavity: str | None = Field(None, description="label whose middle is that of the ring; none: the hole in the ring")
    darker_than: str | None = Field(
        None, description="label, such as the blood pool, that remote muscle must be darker than; none: not checked"
    )


class Method(Section):
    """Base of all methods."""

    trained: ClassVar[bool] = False

    @property
    def needs_training(self) -> bool:
        """Whether it learns from cases whose tissue is known."""
        return self.trained


# ---------------------------------------------------------------- thresholds


class OtsuConfig(Method):
    """Otsu's threshold; the brightest class is the tissue."""

    name: Literal["otsu"] = "otsu"
    classes: Groups = Field(2, description="of intensity; 3 leaves one for grey zone or oedema")
    bins: Groups = Field(256, description="of the histogram of the region")


class FullWidthConfig(Method):
    """Full width at half maximum."""

    name: Literal["fwhm"] = "fwhm"
    reference: Literal["core", "maximum"] = Field(
        "core", description="maximum of the largest piece above core_sd, or of the whole region"
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="of the way from baseline to maximum")
    percentile: Annotated[float, Field(gt=0, le=100)] = Field(
        95.0, description="of the reference's intensities that counts as its maximum; below 100 against single voxels"
    )
    baseline: Literal["zero", "minimum", "remote"] = Field("zero", description="from where half is taken")
    core_sd: Positive = Field(5.0, description="SD above remote myocardium where the core begins")
    remote: RemoteConfig = RemoteConfig()


class StandardDeviationsConfig(Method):
    """Signal threshold to reference mean: n standard deviations above remote myocardium."""

    name: Literal["strm"] = "strm"
    n: Positive = Field(5.0, description="standard deviations, 2 to 6 are usual")
    remote: RemoteConfig = RemoteConfig()


class RegionGrowingConfig(Method):
    """From the brightest voxels to connected ones."""

    name: Literal["region_growing"] = "region_growing"
    lower: float | Literal["otsu", "fwhm", "likeness"] = Field(
        "otsu", description="threshold of what is joined: a number, that of a method, or likeness to what has grown"
    )
    deviations: Positive = Field(2.5, description="half width of likeness, in SD of what has grown")
    stop_above: bool = Field(False, description="whether voxels brighter than what is alike stay out")
    iterations: Count = Field(25, description="of likeness, at most")
    seeds: str | None = Field(None, description="label of the seeds; none: the brightest voxels")
    brightest: Share = Field(0.01, description="share of the region's voxels that are seeds")


# ---------------------------------------------------------------- clusters and classifiers


class KMeansConfig(Method):
    """k-means of intensities."""

    name: Literal["kmeans"] = "kmeans"
    clusters: Groups = Field(2, description="k")
    bright: Count = Field(1, description="how many of the brightest clusters are the tissue")
    neighbourhood_mm: Length = Field(0.0, description="SD of a window whose mean is a second feature; 0: none")
    position_weight: Length = Field(0.0, description="SD of intensity that an SD of place counts as; 0: no place")
    restarts: Count = Field(10, description="starts, of which the tightest counts")
    sample: Annotated[int, Field(ge=100)] = Field(100_000, description="voxels that clusters are found from, at most")
    seed: Seed = Field(0, description="of starts and sample")


class GaussianMixtureConfig(Method):
    """Posterior of the brightest Gaussian of a mixture."""

    name: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: Groups = Field(2, description="Gaussians")
    bright: Count = Field(1, description="how many of the brightest are the tissue")
    restarts: Count = Field(3, description="starts, of which the likeliest counts")
    sample: Annotated[int, Field(ge=100)] = Field(100_000, description="voxels that the mixture is fitted to, at most")
    seed: Seed = Field(0, description="of starts and sample")


class VoxelClassifierConfig(Method):
    """A classifier of voxels by intensity, neighbourhood and place, trained on cases."""

    trained: ClassVar[bool] = True
    name: Literal["svm", "knn", "random_forest", "mlp"] = "random_forest"
    pool: str | None = Field(None, description="label of the LV blood pool; none: unknown")
    rv: str | None = Field(None, description="label of the RV blood pool; none: unknown, and so the angle")
    scales_mm: tuple[Positive, ...] = Field((1.5, 3.0), description="of the neighbourhood")
    position: bool = Field(True, description="whether depth in the wall, angle and height count")
    oriented: bool = Field(False, description="whether all volumes are stored in one orientation")
    aim: Literal["probability", "dice"] = Field(
        "dice", description="0.5 falls where the training cases' Dice is largest, or is a calibrated probability"
    )
    voxels: Annotated[int, Field(ge=20, le=1_000_000)] = Field(10_000, description="of training, at most")
    neighbours: Count = Field(51, description="of knn")
    trees: Count = Field(100, description="of random_forest")
    leaf: Count = Field(10, description="voxels in a leaf of random_forest, at least")
    landmarks: Count = Field(200, description="of svm")
    hidden: tuple[Count, ...] = Field((32,), description="units of each layer of mlp")
    seed: Seed = Field(0, description="of sample and training")


# ---------------------------------------------------------------- contours


class GeodesicConfig(Method):
    """Geodesic active contour, from the brightest voxels or a label."""

    name: Literal["geodesic_active_contour"] = "geodesic_active_contour"
    start: str | None = Field(None, description="label that it starts from; none: the brightest voxels")
    start_margin_mm: float = Field(0.0, description="the start is widened by this, or narrowed")
    seed_share: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="of the voxels, that make the start")
    sigma_mm: Length = Field(1.0, description="of the Gaussian before the gradient")
    edge_sd_per_mm: Positive = Field(0.2, description="gradient at which it moves at half its speed")
    balloon: float = Field(1.0, description="force outward; below 0 inward")
    smoothness_mm: Length = Field(0.5, description="weight of the curvature")
    attraction_mm: Length = Field(3.0, description="weight of the pull towards edges")
    reach_mm: Positive = Field(40.0, description="no part moves further")


class ChanVeseConfig(Method):
    """Chan and Vese: two means and a short border."""

    name: Literal["chan_vese"] = "chan_vese"
    start: str | None = Field(None, description="label that gives the first means; none: Otsu's threshold")
    smoothness_mm: Length = Field(0.5, description="weight of the border's length")
    tissue: Literal["bright", "dark"] = Field("bright", description="which of the two is sought")
    iterations: Count = Field(500, description="at most")
    tolerance: Positive = Field(1e-4, description="mean change of a step at which it stops")


class RandomWalkerConfig(Method):
    """Random walker, from the brightest and darkest voxels or from labels."""

    name: Literal["random_walker"] = "random_walker"
    tissue_seeds: str | None = Field(None, description="label of certain tissue; none: from intensities")
    rest_seeds: str | None = Field(None, description="label of certain rest; none: from intensities")
    certain: Share = Field(0.5, description="share of bright and of dark voxels that are seeds")
    sigma_mm: Length = Field(1.0, description="of the Gaussian before seeds are taken")
    beta: Positive = Field(10.0, description="how much a difference of intensity hinders a step")
    tolerance: Positive = Field(1e-6, description="of the linear system")


# ---------------------------------------------------------------- energies


class EnergyMethod(Method):
    """What energies have in common."""

    model: Literal["mixture", "histograms"] = Field(
        "mixture", description="of intensities: fitted in the region, or histograms of training cases"
    )
    smoothness: Length = Field(4.0, description="cost of a surface, nats a voxel times mm")

    @property
    def needs_training(self) -> bool:
        """Whether its intensities are those of cases."""
        return self.model == "histograms"


class GraphCutConfig(EnergyMethod):
    """Graph cut."""

    name: Literal["graph_cut"] = "graph_cut"
    contrast: Length = Field(1.0, description="how much less a surface costs where intensities differ; 0: not")
    neighbours: Literal[6, 26] = Field(26, description="of a voxel")


class PottsFlowConfig(EnergyMethod):
    """Continuous max-flow between two tissues."""

    name: Literal["potts_flow"] = "potts_flow"
    iterations: Count = Field(300, description="at most")
    tolerance: Positive = Field(1e-3, description="of the gap between energy and flow")


class HierarchicalFlowConfig(Method):
    """Hierarchical max-flow: the tissue and the rest of the region below the region, beside all else."""

    trained: ClassVar[bool] = True
    name: Literal["hierarchical_flow"] = "hierarchical_flow"
    smoothness: Length = Field(2.0, description="cost of a surface, for each of the two labels that it parts")
    iterations: Count = Field(300, description="at most")
    bins: Groups = Field(128, description="of the histograms")
    blur_bins: Length = Field(2.0, description="SD of their smoothing")


ClassicalMethod = Annotated[
    OtsuConfig
    | FullWidthConfig
    | StandardDeviationsConfig
    | RegionGrowingConfig
    | KMeansConfig
    | GaussianMixtureConfig
    | VoxelClassifierConfig
    | GeodesicConfig
    | ChanVeseConfig
    | RandomWalkerConfig
    | GraphCutConfig
    | PottsFlowConfig
    | HierarchicalFlowConfig,
    Field(discriminator="name"),
]
