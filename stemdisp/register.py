"""Frames -> shifts and scan distortions, aligned mean and its noise.

On a lattice the correlation of two frames has a peak at every lattice vector, and only what is
not periodic (film, interface, defects, slow contrast) tells the true one from its neighbours. So
many pairs of frames are correlated, several peaks are kept for each, and the frames are placed
where all pairs together agree best. Only then are the positions refined below the pixel, and the
drift within each frame and the jitter of its lines found.

Conventions: shifts are (x, y), x right, y down, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemdisp._mean import assembled, mean_of
from stemdisp._places import Placed, find_places
from stemdisp._resample import Place
from stemdisp._source import FrameSource, check_square_pixels, frame_source
from stemdisp.load import signal_pixel_size_A

if TYPE_CHECKING:
    from hyperspy.signals import Signal2D


@dataclass(frozen=True, eq=False)
class Registration:
    """Frames placed on each other, and their mean.

    Attributes
    ----------
    shifts_px : ndarray, shape (n, 2)
        How far (x, y) the content of a frame lies to the right of and below that of the first
        used frame; NaN for frames left out.
    image : ndarray, shape (ny, nx)
        Mean of the used frames, cropped to the area that all of them cover.
    origin_px : (int, int)
        Position (x, y) of the first pixel of `image` in the first used frame.
    used : ndarray of bool, shape (n,)
        False for blank frames and for those that fit the others badly.
    correlation : ndarray, shape (n,)
        Correlation of each frame with the mean of the others, after filtering; NaN if blank.
    noise_psd : tuple of ndarray or None
        Spatial frequency (1/px) and power of the noise of `image`; white noise of variance s2
        has the power s2 at every frequency. None with fewer than two used frames.
    n_used : int
        Number of frames in the mean.
    halves : tuple of two ndarrays, shape (ny, nx), or None
        Means of the first, third, ... and of the second, fourth, ... of the used frames, NaN
        where they have no pixel.
    guard : dict
        `n_pairs`: pairs of frames compared; `max_transitivity_px`: largest disagreement of a
        pair with the final positions; `n_repaired`: pairs whose highest peak was another lattice
        vector; `margin`: lead of the chosen positions over the next best ones, in units of the
        scatter of wrong ones; `ambiguous`: whether that lead is too small to trust.
    scan : dict
        What was found within the frames: `drift_px` (n, 2), the drift (x, y)
        from the first line to the last against that of the mean; `jitter_px` (x, y), the
        standard deviation of the lines; `directions`, the number of scan directions: with two,
        the drift is that against the specimen. Both are taken out, but for the mean jitter of each
        half of the frames: all of it with two frames, a quarter of its power with eight.
    places : tuple
        For each frame where it lies on the grid of `image`; None for frames left out.
    signal : Signal2D or None
        `image` with calibrated axes, where the input was a signal.
    """

    shifts_px: np.ndarray
    image: np.ndarray
    origin_px: tuple[int, int]
    used: np.ndarray
    correlation: np.ndarray
    noise_psd: tuple[np.ndarray, np.ndarray] | None
    n_used: int
    guard: dict[str, Any]
    signal: Signal2D | None = None
    halves: tuple[np.ndarray, np.ndarray] | None = None
    scan: dict[str, Any] = field(default_factory=dict)
    places: tuple[Place | None, ...] = ()

    def placed(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Sample a frame on the grid of the mean.

        Parameters
        ----------
        frame : ndarray, shape (ny, nx)
            The frame as it was read.
        index : int
            Its number.

        Returns
        -------
        ndarray
            Of the shape of `image`, NaN where the frame has no value.

        Raises
        ------
        ValueError
            If the frame was left out.
        """
        part, good = self.place(index).sample(np.where(np.isfinite(frame), frame, np.nan))
        return part if good is None else np.where(good, part, np.nan)

    def place(self, index: int) -> Place:
        """Give the place of a frame.

        Parameters
        ----------
        index : int
            The number of a used frame.

        Returns
        -------
        Place

        Raises
        ------
        ValueError
            If the frame was left out.
        """
        if not self.used[index]:
            raise ValueError(f"frame {index} was left out of the mean; it has no place")
        found = self.places[index] if self.places else None
        if found is not None:
            return found
        start = np.array(self.origin_px) + self.shifts_px[index]
        return Place(start, (self.image.shape[1], self.image.shape[0]))


def align_stack(
    stack: Any,
    *,
    upsample: int = 20,
    max_shift_px: float | None = None,
    correct_scan: bool = True,
    scan_rotation_deg: Any = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Registration:
    """Align the frames of a stack, straighten their scan lines and average them.

    Parameters
    ----------
    stack : Signal2D or ndarray, shape (n, ny, nx)
        Frames, left unchanged; a lazy signal is read frame by frame. A single image passes
        through. NaN pixels are ignored.
    upsample : int, default 20
        The refined correlation is computed on a grid of 1 / `upsample` pixels, and its maximum
        is interpolated.
    max_shift_px : float, optional
        Largest shift between one frame and the next, along x and y. Default: a quarter of the
        shorter side.
    correct_scan : bool, default True
        Take out the drift within frames and the jitter of lines as well.
    scan_rotation_deg : float, or sequence of n float, optional
        Direction of the scan lines of every frame, from +x towards +y of the specimen, in
        multiples of 90 degrees; frames are turned upright by it. With two directions the drift
        is known against the specimen, and so is the lattice. Default: that of the signal's
        ``metadata.stemdisp.scan_rotation_deg``, or 0.
    executor : concurrent.futures.Executor, optional
        Who does the work frame by frame; threads of this process by default. The result is the
        same to the last bit.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    Registration
        Shifts, the mean image with its origin and noise, and what the guard against jumps by
        whole cells did.

    Raises
    ------
    ValueError
        If an argument cannot be used.
    DataError
        If no frame holds an image, or the frames have too little area in common.

    Notes
    -----
    Frames are filtered with the maximum-likelihood weights for their own noise and contrast, ring
    by ring, so 1/k^2 noise and background do no harm. Correlations are divided by the energy of
    the overlap, which takes off the preference for small shifts. Lattice vectors are told apart
    by what is left when each cell loses the mean of its neighbours (film, interface, defects),
    summed over all pairs of frames; small drift decides ties only. The fine step is the local
    discrete Fourier transform of Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156 (2008),
    against the mean of the other frames. Then the drift (linear in the line) and the displacement
    of every line are the least-squares solution for the noise found in the frames, with a prior
    for the jitter that the frames themselves make most likely: where they show none, nothing is
    moved. Lines are placed against the mean of all frames, so what all frames have in common
    stays (but for the drift with two scan directions). Averaging uses polynomials
    through six pixels along and across lines, and cubic splines where frames are only shifted.
    """
    rotation = scan_rotation_deg
    if hasattr(stack, "axes_manager"):
        if rotation is None:
            rotation = stack.metadata.get_item("stemdisp.scan_rotation_deg", default=None)
        check_square_pixels(signal_pixel_size_A(stack), rotation)
    source = (
        stack if isinstance(stack, FrameSource) else frame_source(stack, scan_rotation_deg=rotation)
    )
    found = align_frames(
        source,
        upsample=upsample,
        max_shift_px=max_shift_px,
        correct_scan=correct_scan,
        executor=executor,
        progress=progress,
    )
    if not hasattr(stack, "axes_manager"):
        return found
    return replace(found, signal=as_signal(stack, found.image, found.origin_px))


def align_frames(
    source: FrameSource, *, executor: Executor | None = None, **options: Any
) -> Registration:
    """Align frames that are read one at a time; see `align_stack`.

    Parameters
    ----------
    source : FrameSource
        The frames.
    executor : concurrent.futures.Executor, optional
        As for `align_stack`.
    **options
        The others of `find_places`.

    Returns
    -------
    Registration
        Without a signal.

    Raises
    ------
    ValueError, DataError
        As `align_stack`.
    """
    found = find_places(source, executor=executor, **options)
    sums, counts = mean_of(source.frames, found.places, executor=executor)
    image, noise, halves = assembled(sums, counts)
    return registration_of(found, image, noise_psd=noise, halves=halves)


def registration_of(
    found: Placed,
    image: np.ndarray,
    *,
    noise_psd: tuple[np.ndarray, np.ndarray] | None,
    halves: tuple[np.ndarray, np.ndarray] | None,
) -> Registration:
    """Put the places of frames together with their mean.

    Parameters
    ----------
    found : Placed
    image : ndarray, shape (ny, nx)
    noise_psd, halves
        As in `Registration`.

    Returns
    -------
    Registration
    """
    start = np.array([place.start if place else (np.nan, np.nan) for place in found.places])
    first = start[np.flatnonzero(found.used)[0]]
    origin = np.rint(first).astype(int)
    return Registration(
        shifts_px=start - first,
        image=image,
        origin_px=(int(origin[0]), int(origin[1])),
        used=found.used,
        correlation=found.correlation,
        noise_psd=noise_psd,
        n_used=int(np.count_nonzero(found.used)),
        guard=found.guard,
        halves=halves,
        scan=found.scan,
        places=found.places,
    )


def as_signal(stack: Any, image: np.ndarray, origin: tuple[int, int]) -> Signal2D:
    """Wrap the mean as a Signal2D on the axes of the stack, moved by the crop.

    Parameters
    ----------
    stack : Signal2D
    image : ndarray, shape (ny, nx)
    origin : (int, int)
        Position (x, y) of the first pixel of `image` in the stack.

    Returns
    -------
    Signal2D
    """
    from hyperspy.signals import Signal2D

    signal = Signal2D(image.copy())
    for new, old, start in zip(
        signal.axes_manager.signal_axes, stack.axes_manager.signal_axes, origin, strict=True
    ):
        new.name, new.units, new.scale = old.name, old.units, old.scale
        new.offset = old.offset + start * old.scale
    title = stack.metadata.get_item("General.title", "")
    signal.metadata.General.title = f"{title} aligned mean".strip()
    return signal
