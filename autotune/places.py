"""Where a job measures: on this machine, on a Ray cluster, or on the devices of an RPC tracker."""

from __future__ import annotations

from ..codegen.target import Target
from ..errors import OptionError
from .fleet import Fleet
from .measure import LocalMeasurer, Measurer
from .ray_cluster import Cluster, ClusterNodes
from .rpc_devices import RpcDevices
from .rpc_tracker import Tracker


def measurer_at(
    target: Target, *, cluster: str | None = None, rpc: str | None = None, rpc_key: str | None = None, seed: int = 0
) -> Measurer:
    """The measurer for ``target`` that the options of ``mlc tune`` name, see :func:`mlc.tune`; ``seed`` fixes inputs.

    OptionError when they contradict each other, DeviceUnavailableError and TargetError when there is no device that fits.
    """
    if cluster is not None and rpc is not None:
        raise OptionError("kernels are measured on a cluster or on a tracker's devices; leave out --cluster or --rpc")
    if rpc_key is not None and rpc is None:
        raise OptionError("--rpc-key names devices of a tracker; add --rpc HOST:PORT")
    if rpc is not None:
        if not rpc_key:
            raise OptionError("--rpc needs --rpc-key, the key that the devices are served under; 'mlc devices list' shows what there is")
        return Fleet(RpcDevices(Tracker.parse(rpc), rpc_key, target, seed=seed))
    if cluster is not None:
        kind, _, address = cluster.partition("=")
        if kind != "ray" or cluster == "ray=":
            raise OptionError(f"'{cluster}' is no cluster; give --cluster ray or --cluster ray=ADDRESS")
        return Fleet(ClusterNodes(Cluster(address or None), target, seed=seed))
    here = LocalMeasurer(seed=seed)
    here.start()
    return here
