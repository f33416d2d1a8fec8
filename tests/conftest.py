"""What holds for every test."""

from hypothesis import HealthCheck, settings

# A busy machine makes a test slow, not wrong: hypothesis measures neither examples nor how long drawing them takes.
settings.register_profile("eightbit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eightbit")
