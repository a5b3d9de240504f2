"""The Cityscapes label ids that a street is made of."""

from __future__ import annotations

from calibration.cityscapes import LABELS

_BY_NAME = {label.name: label.id for label in LABELS}

ROAD = _BY_NAME["road"]
SIDEWALK = _BY_NAME["sidewalk"]
BUILDING = _BY_NAME["building"]
WALL = _BY_NAME["wall"]
FENCE = _BY_NAME["fence"]
POLE = _BY_NAME["pole"]
TRAFFIC_LIGHT = _BY_NAME["traffic light"]
TRAFFIC_SIGN = _BY_NAME["traffic sign"]
VEGETATION = _BY_NAME["vegetation"]
TERRAIN = _BY_NAME["terrain"]
SKY = _BY_NAME["sky"]
PERSON = _BY_NAME["person"]
RIDER = _BY_NAME["rider"]
CAR = _BY_NAME["car"]
TRUCK = _BY_NAME["truck"]
BUS = _BY_NAME["bus"]
TRAIN = _BY_NAME["train"]
MOTORCYCLE = _BY_NAME["motorcycle"]
BICYCLE = _BY_NAME["bicycle"]
