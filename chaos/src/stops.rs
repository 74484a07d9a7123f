pub(crate) fn run(_: &mut crate::battery::Battery) {}
