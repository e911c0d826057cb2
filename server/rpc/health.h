// grpc.health.v1.Health: the server as a whole (the empty name) and each of its services say SERVING while the database
// can be reached and the server does not drain.
#pragma once

struct server;

// Tells the watchers that server->serving has changed.
void health_changed(struct server *server);
