"""A second witness for `quality.py`: MediaPipe's mesh with attention, which sees lips more finely.

    python benchmarks/attention.py VIDEO.mp4 POINTS.npy

Wants `mediapipe==0.10.21`, `av` and NumPy below 2, in an environment of their own. Writes the
landmarks of every frame, shape (frames, 478, 3), in pixels; where no face is seen those of the
frame before.
"""

import sys

import av
import mediapipe
import numpy as np


def main(video: str, points: str) -> None:
    """Follow the face, write its landmarks, and say in how many frames it was seen."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True)
    seen: list[np.ndarray | None] = []
    with av.open(video) as container:
        for frame in container.decode(video=0):
            found = mesh.process(frame.to_ndarray(format="rgb24")).multi_face_landmarks
            size = frame.width, frame.height, frame.width
            seen.append(
                np.array([(p.x, p.y, p.z) for p in found[0].landmark]) * size if found else None
            )
    count = sum(face is not None for face in seen)
    print(f"A face was seen in {count} of {len(seen)} frames.")
    last = next((face for face in seen if face is not None), None)
    if last is not None:
        followed = [last := last if face is None else face for face in seen]
        np.save(points, np.array(followed, np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
