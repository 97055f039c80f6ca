"""All kinds, by name and type. The one list that API, store, link and docs go by.

The name of a kind is unique among all groups, for the store knows kinds by it alone.
"""

from __future__ import annotations

from roost.model.access import CREDENTIAL, USER
from roost.model.account import PASSWORD, SERVICE_ACCOUNT, SIGNING_KEY
from roost.model.cloud import CLOUD, SUBCLOUD
from roost.model.configuration import HOST_CONFIGURATION
from roost.model.coordination import LEASE
from roost.model.event import EVENT, EVENT_V1
from roost.model.fault import ALARM, LOG_ENTRY
from roost.model.firewall import FIREWALL_POLICY
from roost.model.firewall_v2alpha1 import FIREWALL_POLICY_V2ALPHA1
from roost.model.fleet import SUBCLOUD_GROUP
from roost.model.host import HOST
from roost.model.incident import INCIDENT, UPLINK
from roost.model.kind import KindInfo
from roost.model.meta import Resource
from roost.model.monitoring import MONITORING_PROFILE
from roost.model.network import PLATFORM_NETWORK
from roost.model.operation import OPERATION
from roost.model.outlet import ALARM_OUTLET
from roost.model.override import LOCAL_OVERRIDE, MANAGEMENT, OVERRIDE_REVIEW, SUBCLOUD_EXCEPTION
from roost.model.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING
from roost.model.secret import CONFIG_MAP, SECRET
from roost.model.subcloud_operation import SUBCLOUD_OPERATION
from roost.model.suppression import ALARM_POLICY, ALARM_SUPPRESSION

KINDS: tuple[KindInfo, ...] = (
    CLOUD,
    SUBCLOUD,
    SUBCLOUD_GROUP,
    SUBCLOUD_OPERATION,
    UPLINK,
    INCIDENT,
    HOST,
    HOST_CONFIGURATION,
    PLATFORM_NETWORK,
    FIREWALL_POLICY,
    ALARM,
    LOG_ENTRY,
    ALARM_SUPPRESSION,
    ALARM_POLICY,
    MONITORING_PROFILE,
    ALARM_OUTLET,
    OPERATION,
    LOCAL_OVERRIDE,
    OVERRIDE_REVIEW,
    SUBCLOUD_EXCEPTION,
    MANAGEMENT,
    USER,
    CREDENTIAL,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    SIGNING_KEY,
    PASSWORD,
    EVENT,
    LEASE,
    SECRET,
    CONFIG_MAP,
)

VERSIONS: tuple[KindInfo, ...] = (EVENT_V1, FIREWALL_POLICY_V2ALPHA1)
"""Other versions of these kinds that are served beside the stored one."""

BY_KIND = {k.kind: k for k in KINDS}
BY_TYPE: dict[type[Resource], KindInfo] = {k.type: k for k in (*KINDS, *VERSIONS)}
SERVED = tuple(k for k in (*KINDS, *VERSIONS) if k.served)
