"""Where segmented frames go; any mix. Each module holds one kind of ``base.Sink``."""
