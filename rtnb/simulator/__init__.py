"""Being a service: a real local server that listens, answers and speaks, with faults on demand.

>>> from rtnb.simulator import Fault
>>> Fault.parse("close@response.done").kind
'close'
"""

from rtnb.simulator.classroom import Room
from rtnb.simulator.faults import Fault, LatencyProfile
from rtnb.simulator.host import Options, Simulator, take_options
from rtnb.simulator.scenario import Scenario

__all__ = ["Fault", "LatencyProfile", "Options", "Room", "Scenario", "Simulator", "take_options"]
