<<<<<<< HEAD
//! Integration tests: the backends against their contract, and everything against real servers.

mod support;
=======
//! Integration tests, as one binary: it is linked once.

mod config;
>>>>>>> wt-b
//! Integration tests.

mod rooms;
