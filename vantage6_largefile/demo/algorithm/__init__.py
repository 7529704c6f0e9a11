"""A federated text classifier for ICD-10-CM categories, as an ordinary vantage6 algorithm.

This package is the whole algorithm: it is run as it stands by the process engine of the demo and copied into
the algorithm image. It therefore imports nothing of ``vantage6_largefile``; it needs numpy, scipy, requests and
the stock ``vantage6-algorithm-tools`` 4.15.2, whose wrapper calls the functions below by name. Nothing in it
knows where results are stored: large ones travel by reference because the nodes see to it.

=================  ==========================================================================================
function           what it does
=================  ==========================================================================================
``central``        federated averaging over the hospitals, evaluation at the central node
``train_round``    one round of training at one hospital
``echo_size``      a result of an exact size, for tests
``echo_input``     sends back what came in, for tests
``central_echo``   large inputs to and large results from subtasks by stock calls only, for tests
``write_nothing``  leaves no output, for tests
``write_symlink``  leaves a symbolic link as output, for tests
``look_around``    what an algorithm can see of the node's volume, for tests
=================  ==========================================================================================
"""

from .echo import central_echo, echo_input, echo_size, look_around, write_nothing, write_symlink
from .federated import central, train_round

__all__ = [
    "central",
    "central_echo",
    "echo_input",
    "echo_size",
    "look_around",
    "train_round",
    "write_nothing",
    "write_symlink",
]
