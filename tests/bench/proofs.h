/* What a client says to the challenges of CRAM-MD5 (RFC 2195) and SCRAM (RFC 5802, 7677). */

/* Of OpenSSL's libcrypto, whose headers are not everywhere where it is itself. */
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_md5(void);
const EVP_MD *EVP_sha1(void);
const EVP_MD *EVP_sha256(void);
int EVP_Digest(const void *data, size_t size, unsigned char *digest, unsigned *digest_size,
               const EVP_MD *, void *engine);
unsigned char *HMAC(const EVP_MD *, const void *key, int key_size, const unsigned char *data,
                    size_t size, unsigned char *code, unsigned *code_size);
int PKCS5_PBKDF2_HMAC(const char *password, int password_size, const unsigned char *salt,
                      int salt_size, int iterations, const EVP_MD *, int size, unsigned char *key);
int EVP_EncodeBlock(unsigned char *text, const unsigned char *from, int size);
int EVP_DecodeBlock(unsigned char *to, const unsigned char *text, int size);

enum {
    NAME_BYTES = 512,          /* a login with its realm */
    MESSAGE_BYTES = 1024,
    LONGEST_DIGEST = 32,
};

/* A user, and the salted password as it was when the server last gave that salt. */
struct user {
    char name[NAME_BYTES], salt[128];
    const char *password;
    unsigned char salted[LONGEST_DIGEST];
    pthread_mutex_t lock;
};

/* One exchange: how many challenges were responded to, and what SCRAM must remember of it. */
struct exchange {
    int steps;
    char nonce[64];
    unsigned char server_signature[LONGEST_DIGEST];
};

/* *digest* is NULL where nothing is proven; *respond* writes what follows a
 * challenge, and returns its size, or -1 if that challenge cannot be the server's. */
struct mechanism {
    const char *name;
    int challenges;
    const EVP_MD *(*digest)(void);
    int (*respond)(const struct mechanism *, struct exchange *, struct user *, char *challenge,
                   char *response);
};

/* Write the base64 of *from*, and a NUL; return the length. */
static int encode_base64(const void *from, int size, char *to) {
    return EVP_EncodeBlock((unsigned char *)to, from, size);
}

/* Write what *text* stands for, and a NUL; return the length, -1 if it is no base64. */
static int decode_base64(const char *text, int size, char *to) {
    int length = EVP_DecodeBlock((unsigned char *)to, (const unsigned char *)text, size);

    for (; length > 0 && size && text[size - 1] == '='; size--) length--;
    if (length >= 0) to[length] = '\0';
    return length;
}

static int respond_to_cram(const struct mechanism *mechanism, struct exchange *exchange,
                           struct user *user, char *challenge, char *response) {
    unsigned char code[LONGEST_DIGEST];
    unsigned size;

    if (exchange->steps++) return -1;
    HMAC(mechanism->digest(), user->password, (int)strlen(user->password),
         (unsigned char *)challenge, strlen(challenge), code, &size);
    int length = sprintf(response, "%s ", user->name);
    for (unsigned i = 0; i < size; i++) length += sprintf(response + length, "%02x", code[i]);
    return length;
}

static unsigned sign(const EVP_MD *digest, const unsigned char *key, unsigned key_size,
                     const char *data, unsigned char *code) {
    unsigned size;
    HMAC(digest, key, (int)key_size, (const unsigned char *)data, strlen(data), code, &size);
    return size;
}

/* Write the salted password; it is computed once as long as the server keeps to one salt. */
static bool salt_password(const EVP_MD *digest, int size, struct user *user, const char *salt,
                          int iterations, unsigned char *salted) {
    char bytes[sizeof user->salt];

    pthread_mutex_lock(&user->lock);
    bool is_known = strcmp(user->salt, salt) == 0;
    if (is_known) memcpy(salted, user->salted, LONGEST_DIGEST);
    pthread_mutex_unlock(&user->lock);
    if (is_known) return true;

    int length = decode_base64(salt, (int)strlen(salt), bytes);
    if (length < 1 || !PKCS5_PBKDF2_HMAC(user->password, (int)strlen(user->password),
                                         (unsigned char *)bytes, length, iterations, digest, size,
                                         salted))
        return false;
    pthread_mutex_lock(&user->lock);
    strcpy(user->salt, salt);
    memcpy(user->salted, salted, LONGEST_DIGEST);
    pthread_mutex_unlock(&user->lock);
    return true;
}

static int prove(const struct mechanism *mechanism, struct exchange *exchange, struct user *user,
                 const char *server_first, char *response) {
    const EVP_MD *digest = mechanism->digest();
    unsigned char salted[LONGEST_DIGEST], client[LONGEST_DIGEST], stored[LONGEST_DIGEST];
    unsigned char signature[LONGEST_DIGEST], server[LONGEST_DIGEST];
    char nonce[256], salt[128], message[NAME_BYTES + 2 * MESSAGE_BYTES];
    int iterations;
    unsigned size;

    if (sscanf(server_first, "r=%255[^,],s=%127[^,],i=%d", nonce, salt, &iterations) != 3 ||
        strncmp(nonce, exchange->nonce, strlen(exchange->nonce)) != 0)
        return -1;
    EVP_Digest("", 0, stored, &size, digest, NULL);
    if (!salt_password(digest, (int)size, user, salt, iterations, salted)) return -1;
    sign(digest, salted, size, "Client Key", client);
    sign(digest, salted, size, "Server Key", server);
    EVP_Digest(client, size, stored, &size, digest, NULL);

    int length = sprintf(response, "c=biws,r=%s", nonce);
    snprintf(message, sizeof message, "n=%s,r=%s,%s,%s", user->name, exchange->nonce, server_first,
             response);
    sign(digest, stored, size, message, signature);
    sign(digest, server, size, message, exchange->server_signature);
    for (unsigned i = 0; i < size; i++) client[i] ^= signature[i];
    length += sprintf(response + length, ",p=");
    return length + encode_base64(client, (int)size, response + length);
}

static int respond_to_scram(const struct mechanism *mechanism, struct exchange *exchange,
                            struct user *user, char *challenge, char *response) {
    char expected[2 + LONGEST_DIGEST * 2] = "v=";
    unsigned size;
    unsigned char unused[LONGEST_DIGEST];

    if (exchange->steps++ == 0) return prove(mechanism, exchange, user, challenge, response);
    EVP_Digest("", 0, unused, &size, mechanism->digest(), NULL);
    encode_base64(exchange->server_signature, (int)size, expected + 2);
    return strcmp(challenge, expected) == 0 ? 0 : -1;
}

static const struct mechanism MECHANISMS[] = {
    {"PLAIN", 0, NULL, NULL},
    {"CRAM-MD5", 1, EVP_md5, respond_to_cram},
    {"SCRAM-SHA-1", 2, EVP_sha1, respond_to_scram},
    {"SCRAM-SHA-256", 2, EVP_sha256, respond_to_scram},
};
