# First process of a cluster's namespaces. RUN is the run's directory, NODE the node's address or empty; the arguments
# are what it waits for: when that ends, so does this, and with the first process of a process namespace every other.
set -e
exec 3<&0

# etcd waits for every write to reach the disk; nothing here has to outlive the run.
mkdir -p "$RUN/etcd"
mount -t tmpfs etcd "$RUN/etcd"

if [ -n "$NODE" ]; then
    # Paths that kubelet, containerd and CNI plugins have built in: the host's own stay untouched.
    for folder in /run/netns /run/containerd /var/lib/kubelet /var/lib/cni /var/log/containers; do
        mkdir -p "$folder"
        mount -t tmpfs node "$folder"
    done
    # kubelet and kube-proxy set what is the whole machine's; they may set copies.
    mkdir -p "$RUN/sysctl"
    for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
        kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        copy="$RUN/sysctl/$(echo "$setting" | tr / .)"
        cat "/proc/sys/$setting" > "$copy"
        mount --bind "$copy" "/proc/sys/$setting"
    done
    # The address has to be on a device that is up and has a default route, or the components find no address.
    # A bridge, because not every kernel has dummy devices.
    ip link set lo up
    ip link add node0 type bridge
    ip address add "$NODE/24" dev node0
    ip link set node0 up
    ip route add default via "${NODE%.*}.254" dev node0
fi

touch "$RUN/ready"
# In the background and waited for: a shell that waits also takes in the orphans of its namespace.
"$@" <&3 > /dev/null &
wait $!

# The owner is gone without tidying. Nothing is mounted in the folder of the images, and that is the large one.
kill -KILL -1 || true
rm -rf "$RUN/containerd/root"
