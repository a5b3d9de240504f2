"""The parts of the procedural street: geometry, materials, things, and what draws them.

The way in is ``calibration.streets``. Units are metres and seconds; a point of the world is
(s, u, h): distance along the road, distance to the right of its centre line, height.
"""
