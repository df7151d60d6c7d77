//! Containers of podman itself: root's from Quadlet files, as units, and a user's, rootless, from
//! hers. Only in trees that have podman. No network and no registry: the image is a directory, and
//! what runs in it comes from the box's own /usr.

use crate::behaviour::caller::{Answer, ask_as, decision, pay, whoami};
use crate::behaviour::site::{self, USER, USER_ID};
use crate::behaviour::units::{demand, show, until};
use crate::boxed::SysBox;
use crate::suite::{INDENT, Suite};

/// The program by which a tree is known to have it.
pub const PROGRAM: &str = "usr/bin/podman";

const IMAGE: &str = "localhost/probe:1";

/// Where containers leave what they were told.
const OUT: &str = "/run/podman-out";

/// Why each line:
/// * containers.conf: this box has no `pids` controller to limit processes with;
/// * tmpfs: podman's layers are an overlay, which is not made on another, as the box's `/` is;
/// * /run/proc: in a user namespace the kernel mounts a /proc only where an unmasked one is in sight
///   (mount_too_revealing() in fs/namespace.c), and systemd-nspawn masks parts of the box's.
const PREPARE: &str = r"
mkdir -p /etc/containers/systemd /var/lib/containers OUT /run/proc
printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf
mount -t tmpfs -o mode=0700 tmpfs /var/lib/containers
mount -t tmpfs -o mode=0700,uid=UID,gid=UID tmpfs /home/USER
mount -t proc proc /run/proc
mkdir -p /run/image/{usr,proc,sys,dev,run,tmp,out,etc}
ln -s usr/bin usr/lib usr/lib64 /run/image/
tar -C /run/image -cf /run/image.tar .
podman import -q /run/image.tar IMAGE
podman --version";

pub fn run(suite: &mut Suite<'_>, boxed: &SysBox) {
    let version = site::add(boxed).and_then(|()| boxed.sh(&filled(PREPARE)).success());
    match version {
        Ok(said) => println!("{INDENT}{}", said.lines().last().unwrap_or_default()),
        Err(why) => return suite.require("podman: it is there, with an image", why),
    }
    suite.check(
        "podman: a Quadlet unit is its unit where `container = true` says so, recorded as nested",
        || quadlet(boxed),
    );
    suite.check(
        "podman: a process of the host in that unit is not what `container = true` means",
        || beside_the_container(boxed),
    );
    suite.check(
        "podman: a Quadlet unit is refused where `container = true` is missing",
        || not_said(boxed),
    );
    suite.check(
        "podman: a rootless container never is the system unit of its unit's name",
        || rootless(boxed),
    );
}

fn filled(text: &str) -> String {
    text.replace("OUT", OUT)
        .replace("IMAGE", IMAGE)
        .replace("UID", &USER_ID.to_string())
        .replace("USER", USER)
}

/// A Quadlet file (podman-systemd.unit(5)) whose container asks, leaves the answers and stays.
/// Without DefaultDependencies a user's would wait 90 s for a network.
fn container(out: &str, script: &str) -> String {
    format!(
        "[Container]
Image={IMAGE}
Network=none
Volume=/usr:/usr:ro
Volume=/run/assertd:/run/assertd
Volume={out}:/out
PodmanArgs=--stop-timeout=1
Exec=sh -c '{script}; mv /out/new /out/answer; exec sleep infinity'

[Quadlet]
DefaultDependencies=false
"
    )
}

/// Starts the unit NAME.service that a Quadlet file makes and waits for what its container says. It
/// runs until it is stopped.
fn started(boxed: &SysBox, name: &str, script: &str) -> Result<String, String> {
    let text = container(OUT, script);
    boxed.write(&format!("/etc/containers/systemd/{name}.container"), text)?;
    let start = format!("rm -f {OUT}/answer; systemctl daemon-reload; systemctl start {name}");
    boxed.sh(&start).success()?;
    said(boxed, &format!("{OUT}/answer"))
}

fn said(boxed: &SysBox, file: &str) -> Result<String, String> {
    let path = boxed.root().join(file.trim_start_matches('/'));
    until("the container has asked", || path.exists())?;
    std::fs::read_to_string(&path).map_err(|e| format!("{file}: {e}"))
}

/// Its file goes too, so that the name is free.
fn stopped(boxed: &SysBox, name: &str) -> Result<(), String> {
    let script = format!(
        "systemctl stop {name}; rm /etc/containers/systemd/{name}.container; systemctl daemon-reload
         systemctl reset-failed {name} || true # it was killed"
    );
    boxed.sh(&script).success().map(drop)
}

/// Left running for [`beside_the_container`].
fn quadlet(boxed: &SysBox) -> Result<(), String> {
    let answer = started(boxed, "pod", "asker once pod >/out/new")?;
    let answer = Answer::parse(&answer)?.must_be(200)?;
    let record = decision(boxed, &answer.id)?;
    let invocation = show(boxed, "pod.service", "InvocationID");
    let as_wanted = record["unit"] == "/system.slice/pod.service"
        && record["invocation"] == *invocation
        && record["nested"] == true
        && record["container"] == true;
    demand(as_wanted && invocation.len() == 32, || {
        format!("invocation {invocation} is recorded as {record}")
    })
}

/// Where conmon runs: the unit's own cgroup is empty, as it delegates.
fn beside_the_container(boxed: &SysBox) -> Result<(), String> {
    let script = "echo $$ >/sys/fs/cgroup/system.slice/pod.service/runtime/cgroup.procs
                  assertctl whoami --json; echo; asker once pod";
    let shown = boxed.sh(script).success();
    stopped(boxed, "pod")?;
    let shown = shown?;
    let (who, answer) = shown.rsplit_once("\n{").ok_or("no answer")?;
    let who = whoami(who)?;
    demand(
        who["unit"] == "/system.slice/pod.service" && who["container"] == false,
        || format!("whoami says {who}"),
    )?;
    Answer::parse(&format!("{{{answer}"))?
        .must_be(403)
        .map(drop)
}

fn not_said(boxed: &SysBox) -> Result<(), String> {
    let answer = started(boxed, "payments", "asker once bank >/out/new");
    let unit = show(boxed, "payments.service", "ControlGroup");
    stopped(boxed, "payments")?;
    Answer::parse(&answer?)?.must_be(403)?;
    demand(unit == "/system.slice/payments.service", || {
        format!("it was in {unit:?}")
    })?;
    // The control: a process of the host in that unit.
    pay(boxed)?.must_be(200).map(drop)
}

/// Her user id is all that her container's root has outside (user_namespaces(7)): with no range of
/// subordinate ids its uid 0 is hers.
fn rootless(boxed: &SysBox) -> Result<(), String> {
    let home = format!("/home/{USER}");
    let text = container(
        "%h/out",
        "{ asker once pod; asker once bank; assertctl whoami --json; } >/out/new",
    );
    for name in ["pod", "payments"] {
        let path = format!("{home}/.config/containers/systemd/{name}.container");
        boxed.write(&path, &text)?;
    }
    let script = format!(
        "mkdir {home}/out; chown -R {USER}: {home}; chmod 644 /run/image.tar
         cd {home}; systemctl start user@{USER_ID}.service
         hers() {{ setpriv --reuid={USER} --regid={USER} --init-groups \
           env HOME={home} XDG_RUNTIME_DIR=/run/user/{USER_ID} \"$@\"; }}
         hers podman import -q /run/image.tar {IMAGE} 2>&1
         for unit in pod payments; do
           rm -f out/answer
           hers systemctl --user daemon-reload
           hers systemctl --user start $unit
           timeout 30 sh -c 'until test -e out/answer; do sleep 0.1; done'
           cp out/answer /run/$unit.answer
           hers systemctl --user stop $unit
         done
         systemctl stop user@{USER_ID}.service"
    );
    boxed.sh(&script).success()?;
    let manager = format!("/user.slice/user-{USER_ID}.slice/user@{USER_ID}.service");
    for unit in ["pod", "payments"] {
        let shown = said(boxed, &format!("/run/{unit}.answer"))?;
        let mut answers = shown.splitn(3, '\n');
        let mut next = || answers.next().ok_or(format!("too little: {shown}"));
        Answer::parse(next()?)?.must_be(403)?;
        Answer::parse(next()?)?.must_be(403)?;
        let who = whoami(next()?)?;
        let as_wanted = who["unit"] == *manager
            && who["uid"] == USER_ID
            && who["nested"] == true
            && who["container"] == true;
        demand(as_wanted, || format!("in {unit}.service whoami says {who}"))?;
    }
    // The control: the same user in the system's unit of that name.
    let user = format!("--property=User={USER}");
    ask_as(boxed, &["--unit=payments.service", &user], "bank")?
        .must_be(200)
        .map(drop)
}
