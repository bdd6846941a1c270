"""What lives on the device between steps, and the two places where host and device meet: staging and readback."""
