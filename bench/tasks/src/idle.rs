//! A thousand tasks that wait: what the process does meanwhile.

use std::task::{Context, Waker};
use std::time::Duration;

use librpc::WaitSet;

use crate::{Row, domain, open};

/// CPU time in ns and context switches of all threads but the one that calls this.
fn activity() -> anyhow::Result<(u64, u64)> {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let (mut cpu, mut switches) = (0, 0);
    for thread in std::fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        if thread.file_name() == *own {
            continue;
        }
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file));
        cpu += read("schedstat")?.split(' ').next().unwrap_or_default().parse::<u64>()?;
        let status = read("status")?;
        let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        switches += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok((cpu, switches))
}

pub(crate) fn run(time: Duration) -> anyhow::Result<Vec<Row>> {
    let path = domain("idle");
    let (node, other) = (open(&path, "here")?, open(&path, "there")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let mut inboxes = (0..700).map(|at| node.subscribe(&format!("topic/{at}"))).collect::<Result<Vec<_>, _>>()?;
    let mut by_tokio = (0..100)
        .map(|at| Ok(node.subscribe(&format!("tokio/{at}"))?.with_tokio()?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let server = node.serve("work")?;
    let client = other.client("nobody")?;
    let full = other.inbox_builder().capacity(4096).open()?;
    let mut sender = node.connect("there")?;
    while sender.try_send(&[0; 500]).is_ok() {}
    let mut outboxes = (0..50).map(|_| node.outbox()).collect::<Vec<_>>();

    type Waits<'w> = std::pin::Pin<Box<dyn Future<Output = ()> + 'w>>;
    let mut tasks: Vec<Waits<'_>> = Vec::new();
    for inbox in inboxes.iter_mut().chain(&mut by_tokio) {
        tasks.push(Box::pin(async { drop(inbox.recv_async().await) }));
    }
    for _ in 0..100 {
        tasks.push(Box::pin(async { drop(server.recv_async().await) }));
    }
    for _ in 0..49 {
        tasks.push(Box::pin(async { drop(client.wait_for_server_async(Duration::MAX).await) }));
    }
    for outbox in &mut outboxes {
        tasks.push(Box::pin(async { drop(outbox.connect_timeout_async("nobody", Duration::MAX).await) }));
    }
    tasks.push(Box::pin(async { drop(sender.flush_async(Duration::MAX).await) }));
    assert_eq!(tasks.len(), 1000);
    let mut context = Context::from_waker(Waker::noop());
    // More than once: what is woken at first looks again.
    for _ in 0..3 {
        for task in &mut tasks {
            assert!(task.as_mut().poll(&mut context).is_pending());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let before = activity()?;
    std::thread::sleep(time);
    let after = activity()?;
    drop(tasks);
    drop(full);

    // A thread that sleeps in a set of all of them.
    let (stop, stopped) = std::os::unix::net::UnixStream::pair()?;
    let mut set = WaitSet::new()?;
    for (token, inbox) in inboxes.iter().enumerate() {
        set.add(token as u64, inbox)?;
    }
    set.add(1000, &server)?;
    set.add_descriptor(1001, &stopped)?;
    let (quiet, seen) = std::thread::scope(|scope| {
        scope.spawn(move || {
            while !set.wait().is_ok_and(|tokens| tokens.contains(&1001)) {
                for inbox in &mut inboxes {
                    let _ = inbox.try_recv();
                }
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        let before = activity();
        std::thread::sleep(time);
        let after = activity();
        drop(stop);
        (before, after)
    });
    let row = |what: &str, (cpu, switches): (u64, u64), (cpu_after, switches_after): (u64, u64)| {
        let figure = format!("{} ns of CPU, {} context switches", cpu_after - cpu, switches_after - switches);
        [format!("{what}, {} s", time.as_secs()), figure, String::new()]
    };
    Ok(vec![row("1,000 waiting tasks", before, after), row("a wait set of 700 inboxes", quiet?, seen?)])
}
