"""Short times of servers under test, each as a piece of their environment, to be joined by `|`."""

# The collector runs every second, and what was released a second ago is deleted: what could go too early does.
COLLECTING = {
    "OSPROXY_STORAGE__GRACE_SECONDS": "1",
    "OSPROXY_STORAGE__BLOB_RETENTION_SECONDS": "0",
    "OSPROXY_STORAGE__COLLECT_INTERVAL_SECONDS": "1",
}
# So does the sweep, of blobs that no row names.
SWEEPING = {"OSPROXY_STORAGE__SWEEP_INTERVAL_SECONDS": "1"}
# Jobs are looked for every second.
POLLING = {"OSPROXY_JOBS__POLL_SECONDS": "1"}
# After this a node that does not renew its lease is declared dead.
LEASE_SECONDS = 6
LEASING = {"OSPROXY_NODE__LEASE_SECONDS": str(LEASE_SECONDS)}
# Nodes on which whatever could be declared dead or collected too early is.
HASTY = LEASING | COLLECTING
