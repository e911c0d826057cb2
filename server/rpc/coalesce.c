#include "server/rpc/coalesce.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, DIRTY_MAX = 256, EVENTS = 64 };

// One socket that has been gathered for. The table holds it until close; the thread that gathers and the one that sends
// late hold it while they use it.
struct socket {
        pthread_mutex_t lock;
        int descriptor; // -1: closed
        int error;      // of a late send, for the next sendmsg
        atomic_uint references;
        bool dirty, watched; // in its thread's list; waits to become writable
        struct socket *next; // among the closed ones that the late sender still holds
        size_t start, end;
        unsigned char data[COALESCE_BYTES];
};

static _Atomic(struct socket *) sockets[DESCRIPTORS];
static int late = -1, wake = -1; // epoll of the sockets that were full; eventfd that ends its wait

// Sockets that were closed while they were watched: the late sender lets go of them between two rounds.
static struct {
        pthread_mutex_t lock;
        struct socket *first;
} closed = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct {
        bool on;
        unsigned count;
        struct socket *dirty[DIRTY_MAX];
} gathered;

static ssize_t kernel_sendmsg(int descriptor, const struct msghdr *message, int flags) {
        return syscall(SYS_sendmsg, descriptor, message, flags);
}

static void release(struct socket *socket_) {
        if (atomic_fetch_sub(&socket_->references, 1) != 1)
                return;
        pthread_mutex_destroy(&socket_->lock);
        free(socket_);
}

static void watch(struct socket *socket_) {
        if (socket_->watched)
                return;
        atomic_fetch_add(&socket_->references, 1);
        struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = socket_};
        socket_->watched = !epoll_ctl(late, EPOLL_CTL_ADD, socket_->descriptor, &event);
        if (!socket_->watched) {
                socket_->error = errno;
                release(socket_);
        }
}

// Sends what waits, as far as the kernel takes it. What is left is watched. Called with the lock.
static void send_waiting(struct socket *socket_) {
        while (socket_->start < socket_->end && !socket_->error && socket_->descriptor >= 0) {
                struct iovec part = {socket_->data + socket_->start, socket_->end - socket_->start};
                ssize_t sent = kernel_sendmsg(socket_->descriptor, &(struct msghdr){.msg_iov = &part, .msg_iovlen = 1},
                        MSG_NOSIGNAL | MSG_DONTWAIT);
                if (sent >= 0)
                        socket_->start += (size_t)sent;
                else if (errno == EAGAIN) {
                        watch(socket_);
                        return;
                } else if (errno != EINTR)
                        socket_->error = errno;
        }
        socket_->start = socket_->end = 0;
}

static struct socket *known(int descriptor) {
        return descriptor >= 0 && descriptor < DESCRIPTORS ? atomic_load(&sockets[descriptor]) : NULL;
}

static struct socket *add_socket(int descriptor) {
        if (descriptor < 0 || descriptor >= DESCRIPTORS || late < 0)
                return NULL;
        struct socket *socket_ = malloc(sizeof *socket_);
        if (!socket_)
                return NULL;
        pthread_mutex_init(&socket_->lock, NULL);
        socket_->descriptor = descriptor;
        socket_->error = 0;
        socket_->dirty = socket_->watched = false;
        socket_->start = socket_->end = 0;
        atomic_init(&socket_->references, 1);
        atomic_store(&sockets[descriptor], socket_);
        return socket_;
}

static size_t message_size(const struct msghdr *message) {
        size_t size = 0;
        for (size_t i = 0; i < (size_t)message->msg_iovlen; i++)
                size += message->msg_iov[i].iov_len;
        return size;
}

static void append(struct socket *socket_, const struct msghdr *message) {
        for (size_t i = 0; i < (size_t)message->msg_iovlen; i++) {
                memcpy(socket_->data + socket_->end, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
                socket_->end += message->msg_iov[i].iov_len;
        }
        if (!socket_->dirty) {
                socket_->dirty = true;
                atomic_fetch_add(&socket_->references, 1);
                gathered.dirty[gathered.count++] = socket_;
        }
}

// Gathers, or sends behind what waits. Called with the lock.
static ssize_t send_locked(struct socket *socket_, const struct msghdr *message, int flags) {
        size_t size = message_size(message);
        if (socket_->error) {
                errno = socket_->error;
                return -1;
        }
        bool gather = gathered.on && !message->msg_controllen && size <= COALESCE_BYTES &&
                      (socket_->dirty || gathered.count < DIRTY_MAX);
        if (gather && size <= COALESCE_BYTES - socket_->end && !socket_->watched) {
                append(socket_, message);
                return (ssize_t)size;
        }
        send_waiting(socket_);
        if (socket_->error || socket_->end) {
                errno = socket_->error ? socket_->error : EAGAIN;
                return -1;
        }
        return kernel_sendmsg(socket_->descriptor, message, flags);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
        struct socket *socket_ = known(descriptor);
        if (!socket_ && gathered.on)
                socket_ = add_socket(descriptor);
        if (!socket_)
                return kernel_sendmsg(descriptor, message, flags);
        pthread_mutex_lock(&socket_->lock);
        ssize_t sent = send_locked(socket_, message, flags);
        int error = errno;
        pthread_mutex_unlock(&socket_->lock);
        errno = error;
        return sent;
}

static void bury(struct socket *socket_) {
        pthread_mutex_lock(&closed.lock);
        socket_->next = closed.first;
        closed.first = socket_;
        pthread_mutex_unlock(&closed.lock);
        (void)!write(wake, &(uint64_t){1}, sizeof(uint64_t));
}

static void forget(struct socket *socket_) {
        pthread_mutex_lock(&socket_->lock);
        send_waiting(socket_);
        atomic_store(&sockets[socket_->descriptor], NULL);
        bool watched = socket_->watched;
        if (watched)
                epoll_ctl(late, EPOLL_CTL_DEL, socket_->descriptor, NULL);
        socket_->descriptor = -1;
        pthread_mutex_unlock(&socket_->lock);
        if (watched)
                bury(socket_);
        release(socket_);
}

int shutdown(int descriptor, int how) {
        struct socket *socket_ = known(descriptor);
        if (socket_) {
                pthread_mutex_lock(&socket_->lock);
                send_waiting(socket_);
                pthread_mutex_unlock(&socket_->lock);
        }
        return (int)syscall(SYS_shutdown, descriptor, how);
}

int close(int descriptor) {
        struct socket *socket_ = known(descriptor);
        if (socket_)
                forget(socket_);
        return (int)syscall(SYS_close, descriptor);
}

static void send_late(struct socket *socket_) {
        pthread_mutex_lock(&socket_->lock);
        bool open = socket_->descriptor >= 0;
        if (open) {
                epoll_ctl(late, EPOLL_CTL_DEL, socket_->descriptor, NULL);
                socket_->watched = false;
                send_waiting(socket_);
        }
        pthread_mutex_unlock(&socket_->lock);
        if (open)
                release(socket_); // a closed one goes with the others
}

static void release_closed(void) {
        pthread_mutex_lock(&closed.lock);
        struct socket *first = closed.first;
        closed.first = NULL;
        pthread_mutex_unlock(&closed.lock);
        for (struct socket *next; first; first = next) {
                next = first->next;
                release(first);
        }
}

// Sends what full sockets left behind, when they are writable again.
static void *run_late(void *unused) {
        for (uint64_t ignored;;) {
                struct epoll_event events[EVENTS];
                int count = epoll_wait(late, events, EVENTS, -1);
                for (int i = 0; i < count; i++)
                        if (events[i].data.ptr)
                                send_late(events[i].data.ptr);
                        else
                                (void)!read(wake, &ignored, sizeof ignored);
                release_closed();
        }
        return unused;
}

bool coalesce_start(void) {
        pthread_t thread;
        int poll = epoll_create1(EPOLL_CLOEXEC);
        wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (poll < 0 || wake < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, wake, &(struct epoll_event){.events = EPOLLIN}))
                return false;
        late = poll;
        if (pthread_create(&thread, NULL, run_late, NULL)) {
                late = -1;
                return false;
        }
        pthread_setname_np(thread, "late-send");
        pthread_detach(thread);
        return true;
}

void coalesce_begin(void) { gathered.on = late >= 0; }

void coalesce_end(void) {
        gathered.on = false;
        for (unsigned i = 0; i < gathered.count; i++) {
                struct socket *socket_ = gathered.dirty[i];
                pthread_mutex_lock(&socket_->lock);
                socket_->dirty = false;
                send_waiting(socket_);
                pthread_mutex_unlock(&socket_->lock);
                release(socket_);
        }
        gathered.count = 0;
}
