#include "server/rpc/coalesce.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, SOCKETS_MAX = 256, EVENTS = 64 };

// A socket, by its descriptor. The place of a descriptor stays when the socket goes, so nobody who looks it up can come
// too late; the buffer comes with the first byte that waits and goes with the last.
struct socket {
        pthread_mutex_t lock;
        atomic_bool used;     // has been gathered for; read without the lock, by all who send or close
        bool watched;         // waits to become writable: an event is to come, or has come and waits for the lock
        int error;            // of sending what was gathered, for the next sendmsg
        const void *gatherer; // the thread whose list it is in, whatever becomes of it; NULL: none
        size_t start, end;    // what waits in the buffer
        unsigned char *data;  // NULL: nothing waits
};

// Memory is touched, and so taken, only where a descriptor is used. In glibc a mutex of zeros is
// PTHREAD_MUTEX_INITIALIZER.
static struct socket sockets[DESCRIPTORS];
static atomic_bool gathering;
static int late = -1; // epoll of the sockets that were full

static _Thread_local struct {
        bool on;
        unsigned count;
        struct socket *sockets[SOCKETS_MAX];
} gathered;

static ssize_t kernel_sendmsg(int descriptor, const struct msghdr *message, int flags) {
        return syscall(SYS_sendmsg, descriptor, message, flags);
}

static int descriptor_of(const struct socket *socket_) { return (int)(socket_ - sockets); }

static struct socket *socket_of(int descriptor) {
        return descriptor >= 0 && descriptor < DESCRIPTORS ? &sockets[descriptor] : NULL;
}

static struct socket *used_socket(int descriptor) {
        struct socket *socket_ = socket_of(descriptor);
        return socket_ && atomic_load(&socket_->used) ? socket_ : NULL;
}

// --- All from here to the next line is called with the socket's lock ---

static void drop_waiting(struct socket *socket_) {
        free(socket_->data);
        socket_->data = NULL;
        socket_->start = socket_->end = 0;
}

// Bytes that core takes for sent are lost: the connection ends, so that both sides learn of it.
static void fail(struct socket *socket_, int error) {
        socket_->error = error;
        drop_waiting(socket_);
        syscall(SYS_shutdown, descriptor_of(socket_), SHUT_RDWR);
}

static void watch(struct socket *socket_) {
        if (socket_->watched)
                return;
        struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = socket_};
        if (epoll_ctl(late, EPOLL_CTL_ADD, descriptor_of(socket_), &event))
                fail(socket_, errno);
        else
                socket_->watched = true;
}

static void unwatch(struct socket *socket_) {
        if (socket_->watched)
                epoll_ctl(late, EPOLL_CTL_DEL, descriptor_of(socket_), NULL);
        socket_->watched = false;
}

// Sends what waits, as far as the kernel takes it. What is left is watched.
static void send_waiting(struct socket *socket_) {
        while (socket_->start < socket_->end) {
                struct iovec part = {socket_->data + socket_->start, socket_->end - socket_->start};
                ssize_t sent = kernel_sendmsg(descriptor_of(socket_),
                        &(struct msghdr){.msg_iov = &part, .msg_iovlen = 1}, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (sent >= 0)
                        socket_->start += (size_t)sent;
                else if (errno == EAGAIN) {
                        watch(socket_);
                        return;
                } else if (errno != EINTR)
                        fail(socket_, errno);
        }
        drop_waiting(socket_);
}

// What core has. Anything else keeps the kernel's ways: datagrams do not run together, blocking sends block.
static bool is_gatherable(int descriptor) {
        int type = 0, flags = fcntl(descriptor, F_GETFL);
        return flags >= 0 && (flags & O_NONBLOCK) &&
               !getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) && type == SOCK_STREAM;
}

// More than COALESCE_BYTES stands for any larger size.
static size_t message_size(const struct msghdr *message) {
        size_t size = 0;
        for (size_t i = 0; i < (size_t)message->msg_iovlen; i++) {
                if (message->msg_iov[i].iov_len > COALESCE_BYTES - size)
                        return COALESCE_BYTES + 1;
                size += message->msg_iov[i].iov_len;
        }
        return size;
}

// Puts it into this thread's list and makes room for it. False where it has to go straight to the kernel.
static bool can_gather(struct socket *socket_, const struct msghdr *message, int flags) {
        bool plain = !message->msg_controllen && !message->msg_name && !(flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT));
        if (!gathered.on || !plain || socket_->error || socket_->watched ||
                message_size(message) > COALESCE_BYTES - socket_->end)
                return false;
        if (socket_->gatherer ? socket_->gatherer != &gathered : gathered.count == SOCKETS_MAX)
                return false;
        if (!socket_->data && !(socket_->data = malloc(COALESCE_BYTES)))
                return false;
        if (!socket_->gatherer) {
                socket_->gatherer = &gathered;
                gathered.sockets[gathered.count++] = socket_;
        }
        return true;
}

static ssize_t gather(struct socket *socket_, const struct msghdr *message) {
        size_t before = socket_->end;
        for (size_t i = 0; i < (size_t)message->msg_iovlen; i++)
                if (message->msg_iov[i].iov_len) {
                        memcpy(socket_->data + socket_->end, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
                        socket_->end += message->msg_iov[i].iov_len;
                }
        return (ssize_t)(socket_->end - before);
}

// Gathers, or sends behind what waits.
static ssize_t send_in_order(struct socket *socket_, const struct msghdr *message, int flags) {
        if (can_gather(socket_, message, flags))
                return gather(socket_, message);
        send_waiting(socket_);
        if (!socket_->error && !socket_->end)
                return kernel_sendmsg(descriptor_of(socket_), message, flags);
        errno = socket_->error ? socket_->error : EAGAIN;
        return -1;
}

// The descriptor is about to mean something else.
static void forget(struct socket *socket_) {
        send_waiting(socket_);
        unwatch(socket_);
        drop_waiting(socket_);
        socket_->error = 0;
        atomic_store(&socket_->used, false);
}

// --- What the executable calls in place of the C library's functions ---

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
        struct socket *socket_ = gathered.on ? socket_of(descriptor) : used_socket(descriptor);
        if (!socket_)
                return kernel_sendmsg(descriptor, message, flags);
        pthread_mutex_lock(&socket_->lock);
        if (!atomic_load(&socket_->used) && is_gatherable(descriptor))
                atomic_store(&socket_->used, true);
        ssize_t sent = atomic_load(&socket_->used) ? send_in_order(socket_, message, flags)
                                                   : kernel_sendmsg(descriptor, message, flags);
        int error = errno;
        pthread_mutex_unlock(&socket_->lock);
        errno = error;
        return sent;
}

int shutdown(int descriptor, int how) {
        struct socket *socket_ = used_socket(descriptor);
        if (socket_) {
                pthread_mutex_lock(&socket_->lock);
                send_waiting(socket_);
                pthread_mutex_unlock(&socket_->lock);
        }
        return (int)syscall(SYS_shutdown, descriptor, how);
}

// Closes under the lock: a send of another thread comes before it, or meets a descriptor that is closed.
int close(int descriptor) {
        struct socket *socket_ = used_socket(descriptor);
        if (!socket_)
                return (int)syscall(SYS_close, descriptor);
        pthread_mutex_lock(&socket_->lock);
        forget(socket_);
        int result = (int)syscall(SYS_close, descriptor), error = errno;
        pthread_mutex_unlock(&socket_->lock);
        errno = error;
        return result;
}

// Sends what full sockets left behind, when they are writable again. An event may be older than the socket that has the
// descriptor now: that one is merely asked too early.
static void *run_late(void *unused) {
        for (;;) {
                struct epoll_event events[EVENTS];
                int count = epoll_wait(late, events, EVENTS, -1);
                for (int i = 0; i < count; i++) {
                        struct socket *socket_ = events[i].data.ptr;
                        pthread_mutex_lock(&socket_->lock);
                        unwatch(socket_);
                        send_waiting(socket_);
                        pthread_mutex_unlock(&socket_->lock);
                }
        }
        return unused;
}

bool coalesce_start(void) {
        pthread_t thread;
        late = epoll_create1(EPOLL_CLOEXEC);
        if (late < 0 || pthread_create(&thread, NULL, run_late, NULL))
                return false;
        pthread_setname_np(thread, "late-send");
        pthread_detach(thread);
        atomic_store(&gathering, true);
        return true;
}

void coalesce_stop(void) { atomic_store(&gathering, false); }

void coalesce_begin(void) { gathered.on = atomic_load(&gathering); }

void coalesce_end(void) {
        gathered.on = false;
        for (unsigned i = 0; i < gathered.count; i++) {
                struct socket *socket_ = gathered.sockets[i];
                pthread_mutex_lock(&socket_->lock);
                socket_->gatherer = NULL;
                send_waiting(socket_);
                pthread_mutex_unlock(&socket_->lock);
        }
        gathered.count = 0;
}
